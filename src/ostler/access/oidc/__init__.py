"""Sign-in by OpenID Connect, optional: a provider says who a person is, Ostler keeps the person and the role.

`service.py` begins and ends a sign-in, `provider.py` talks to the provider, `claims.py` reads what it said,
`identities.py` knows whom it means here. The authorization code flow with PKCE, state and nonce
(https://openid.net/specs/openid-connect-core-1_0.html#CodeFlowAuth, RFC 7636). Start at `service.py`.
"""
