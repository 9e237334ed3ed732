"""The provider: what it says of itself, its keys, and the exchange of a code for what it knows of a person.

Nothing that it answers is trusted beyond what its signature and TLS prove: answers are bounded, redirects
are not followed, and the signing algorithms are those with a public key only.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from ostler.access.oidc.errors import OidcNotInstalled, ProviderAway, ProviderNonsense, SignInRefused
from ostler.core.clock import Clock

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1024 * 1024
KEEP_S = 3600.0
"""How long what a provider says of itself holds."""
LOOK_AGAIN_S = 30.0
"""How soon its keys may be asked for anew because a token was signed with another."""
LEEWAY_S = 60
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
)
_PLACES = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class Registered:
    """How this server is known to the provider. `secret` None: by PKCE alone."""

    issuer: str
    client_id: str
    secret: str | None


class Provider:
    """One provider, asked as seldom as possible."""

    def __init__(self, registered: Registered, clock: Clock) -> None:
        self._registered = registered
        self._clock = clock
        self._client: Client | None = None
        self._about: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, Any] | None = None
        self._asking = asyncio.Lock()

    @property
    def registered(self) -> Registered:
        """How this server is known to it."""
        return self._registered

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.close()

    async def about(self) -> Mapping[str, Any]:
        """Its discovery document (https://openid.net/specs/openid-connect-discovery-1_0.html), checked.

        Raises ProviderAway, ProviderNonsense.
        """
        async with self._asking:
            now = self._clock.monotonic()
            if self._about is None or now - self._about[0] > KEEP_S:
                issuer = self._registered.issuer.rstrip("/")
                found = await self._get(f"{issuer}/.well-known/openid-configuration")
                if str(found.get("issuer", "")).rstrip("/") != issuer:
                    raise ProviderNonsense(
                        f"the provider calls itself {str(found.get('issuer'))[:200]!r}, not {issuer!r}"
                    )
                for place in _PLACES:
                    if not is_safe(found.get(place)):
                        raise ProviderNonsense(f"the provider names no usable {place}")
                self._about = now, found
            return self._about[1]

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> Mapping[str, Any]:
        """The tokens for a code. Raises SignInRefused where the provider does not take it."""
        about, own = await self.about(), self._registered
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        methods = about.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        user = None
        if own.secret is not None and "client_secret_basic" in methods:
            user = quote(own.client_id, safe=""), quote(own.secret, safe="")
        else:
            form["client_id"] = own.client_id
            if own.secret is not None:
                form["client_secret"] = own.secret
        request = (await self._http()).post(str(about["token_endpoint"])).form(form)
        if user is not None:
            request = request.basic_auth(*user)
        status, found = await self._send(request)
        if status >= 400 or not isinstance(found.get("id_token"), str):
            said = str(found.get("error_description") or found.get("error") or f"status {status}")[:200]
            raise SignInRefused(f"the provider did not take the code: {said}")
        return found

    async def verified(self, tokens: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of an ID token whose signature, issuer, audience, time and nonce hold.

        Raises SignInRefused, OidcNotInstalled.
        """
        about = await self.about()
        try:
            from authlib.oidc.core import CodeIDToken
            from joserfc import jwt
            from joserfc.errors import JoseError
        except ImportError as error:
            raise OidcNotInstalled("sign-in by OpenID Connect is not installed") from error
        told = about.get("id_token_signing_alg_values_supported") or ["RS256"]
        allowed = [name for name in ALGORITHMS if name in told]
        options = {
            "iss": {"essential": True, "value": about["issuer"]},
            "aud": {"essential": True, "value": self._registered.client_id},
        }
        for is_last in (False, True):
            keys = await self._key_set(fresh=is_last)
            try:
                token = await asyncio.to_thread(jwt.decode, tokens["id_token"], keys, allowed)
                params = {
                    "nonce": nonce,
                    "client_id": self._registered.client_id,
                    "access_token": tokens.get("access_token"),
                }
                claims = CodeIDToken(token.claims, token.header, options, params)
                claims.validate(now=int(time.time()), leeway=LEEWAY_S)
                return dict(claims)
            except (JoseError, ValueError, TypeError, KeyError) as error:
                # it may be signed with a key that the provider has made since
                if is_last or not self._may_ask_for_keys():
                    raise SignInRefused(f"the provider's word does not hold: {error}") from error
        raise AssertionError("the last try either answers or raises")

    async def userinfo(self, tokens: Mapping[str, Any], subject: str) -> Mapping[str, Any]:
        """What else it knows of the person; nothing where it has no place for that.

        Raises ProviderAway, ProviderNonsense, SignInRefused where it speaks of another person.
        """
        place, token = (await self.about()).get("userinfo_endpoint"), tokens.get("access_token")
        if not is_safe(place) or not isinstance(token, str):
            return {}
        status, found = await self._send((await self._http()).get(str(place)).bearer_auth(token))
        if status >= 400:
            return {}
        if found.get("sub") != subject:
            raise SignInRefused("the provider speaks of two persons at once")
        return found

    def _may_ask_for_keys(self) -> bool:
        return self._keys is None or self._clock.monotonic() - self._keys[0] > LOOK_AGAIN_S

    async def _key_set(self, *, fresh: bool) -> Any:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        if self._keys is None or fresh:
            found = await self._get(str((await self.about())["jwks_uri"]))
            try:
                self._keys = self._clock.monotonic(), KeySet.import_key_set(found)  # type: ignore[arg-type]
            except (JoseError, ValueError, TypeError, KeyError) as error:
                raise ProviderNonsense(f"the provider's keys cannot be read: {error}") from error
        return self._keys[1]

    async def _get(self, url: str) -> Mapping[str, Any]:
        status, found = await self._send((await self._http()).get(url))
        if status != 200:
            raise ProviderNonsense(f"the provider answered {status} at {url}")
        return found

    async def _send(self, request: Any) -> tuple[int, Mapping[str, Any]]:
        """Status and JSON object of an answer. Raises ProviderAway, ProviderNonsense."""
        try:
            built = request.header("accept", "application/json").streamed_read_buffer_limit(0)
            async with built.build_streamed() as response:
                body = b""
                while (piece := await response.body_reader.read_chunk()) is not None:
                    body += bytes(piece)
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ProviderNonsense("the provider's answer is endless")
                status = int(response.status)
        except PyreqwestError as error:
            raise ProviderAway(f"the provider at {self._registered.issuer} does not answer") from error
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ProviderNonsense(f"the provider answered {status} and no JSON object")
        return status, found

    async def _http(self) -> Client:
        if self._client is None:
            builder = ClientBuilder().follow_redirects(False).error_for_status(False)
            self._client = builder.timeout(timedelta(seconds=TIMEOUT_S)).build()
        return self._client


def is_safe(url: Any) -> bool:
    """True for https, and for http on this machine."""
    if not isinstance(url, str):
        return False
    parts = urlsplit(url)
    is_near = parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_near))
