"""A sign-in from its beginning in a browser to its end there."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ostler.access.oidc.claims import name_in, role_in, words_in
from ostler.access.oidc.errors import (
    NoRoleForYou,
    OidcNotConfigured,
    OidcNotInstalled,
    SignInLost,
    SignInRefused,
)
from ostler.access.oidc.identities import Identities
from ostler.access.oidc.provider import Provider, Registered
from ostler.access.users import User
from ostler.core.clock import Clock
from ostler.core.principals import Role
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings

LIFETIME_S = 600
MAX_COOKIE = 4_096
HOME = "/"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and the cookie that binds the sign-in to it."""

    url: str
    cookie: str


class OidcSignIn:
    """Signs people in by the provider that the settings name. `settings` gives those that hold now."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        identities: Identities,
        secret: ServerSecret,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._identities = identities
        self._key = secret.derive("openid connect sign-in").encode()
        self._clock = clock
        self._provider: Provider | None = None

    @property
    def is_configured(self) -> bool:
        """True where a provider is set."""
        settings = self._settings()
        return bool(settings.oidc_issuer and settings.oidc_client_id)

    async def close(self) -> None:
        """Close the connections to the provider."""
        if self._provider is not None:
            await self._provider.close()

    async def begin(self, redirect_uri: str, then: str | None) -> Begun:
        """Where to send the browser. `then` is the own path that it comes back to, else the first page.

        Raises OidcNotConfigured, OidcNotInstalled, ProviderAway, ProviderNonsense.
        """
        provider = self._the_provider()
        try:
            from authlib.oauth2.rfc7636 import create_s256_code_challenge
        except ImportError as error:
            raise OidcNotInstalled("sign-in by OpenID Connect is not installed") from error
        about = await provider.about()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        query = {
            "response_type": "code",
            "client_id": provider.registered.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self._settings().oidc_scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        place = str(about["authorization_endpoint"])
        ends = int(self._clock.now().timestamp()) + LIFETIME_S
        cookie = self._sealed([state, nonce, verifier, own_path(then), redirect_uri, ends])
        return Begun(f"{place}{'&' if '?' in place else '?'}{urlencode(query)}", cookie)

    async def finish(self, answer: Mapping[str, str], cookie: str | None) -> tuple[User, str]:
        """The person who was let in, and the own path to go on to.

        `answer` is the query with which the provider sent the browser back. Raises SignInLost, SignInRefused,
        NoRoleForYou, LastAdmin, ProviderAway, ProviderNonsense, OidcNotConfigured.
        """
        provider = self._the_provider()
        state, nonce, verifier, then, redirect_uri = self._opened(cookie)
        if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
            raise SignInLost("this answer is not to the sign-in that this browser began")
        if "error" in answer:
            said = (answer.get("error_description") or answer["error"])[:200]
            raise SignInRefused(f"the provider says: {said}")
        if not answer.get("code"):
            raise SignInLost("the provider sent no code")
        issuer = (await provider.about())["issuer"]
        if answer.get("iss", issuer) != issuer:  # RFC 9207: another provider's answer
            raise SignInLost("this answer is another provider's")
        tokens = await provider.exchange(answer["code"], verifier, redirect_uri)
        claims = await provider.verified(tokens, nonce)
        user = await self._person(provider, tokens, claims, issuer)
        if user.disabled:
            raise SignInRefused(f"{user.name} is disabled", hint="Ask an administrator.")
        return user, then

    async def _person(
        self, provider: Provider, tokens: Mapping[str, Any], claims: Mapping[str, Any], issuer: str
    ) -> User:
        settings, subject = self._settings(), claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise SignInRefused("the provider names nobody")
        if not words_in(claims, settings.oidc_role_claim) or "preferred_username" not in claims:
            claims = {**await provider.userinfo(tokens, subject), **claims}
        mapping = settings.oidc_role_mapping
        otherwise = None if settings.oidc_default_role == "none" else Role.parse(settings.oidc_default_role)
        role = role_in(claims, settings.oidc_role_claim, mapping, otherwise)
        first = role if role is not None else otherwise
        if first is None:
            raise NoRoleForYou("nobody new is let in: oidc_default_role is none, and oidc_roles is empty")
        return await self._identities.person(issuer, subject, name_in(claims), role, first)

    def _the_provider(self) -> Provider:
        settings = self._settings()
        if not settings.oidc_issuer or not settings.oidc_client_id:
            raise OidcNotConfigured("no provider for sign-in by OpenID Connect is set")
        secret = settings.oidc_client_secret
        registered = Registered(
            settings.oidc_issuer, settings.oidc_client_id, secret.get_secret_value() if secret else None
        )
        if self._provider is None:
            self._provider = Provider(registered, self._clock)
        return self._provider

    def _sealed(self, content: list[Any]) -> str:
        body = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        return f"{body}.{self._signature(body)}"

    def _opened(self, cookie: str | None) -> tuple[str, str, str, str, str]:
        """What `begin` put into the cookie. Raises SignInLost."""
        body, _, signature = (cookie or "").rpartition(".")
        if not body or len(body) > MAX_COOKIE:
            raise SignInLost("this browser began no sign-in")
        if not hmac.compare_digest(self._signature(body).encode(), signature.encode()):
            raise SignInLost("this browser's sign-in is not one of this server")
        try:
            state, nonce, verifier, then, redirect_uri, ends = json.loads(base64.urlsafe_b64decode(body))
        except (ValueError, binascii.Error) as error:
            raise SignInLost("this browser's sign-in cannot be read") from error
        if ends < self._clock.now().timestamp():
            raise SignInLost("this sign-in took too long")
        return state, nonce, verifier, then, redirect_uri

    def _signature(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


def own_path(then: str | None) -> str:
    """The path itself where it can only lead to a page of this server, else the first page."""
    if then is None or not then.startswith("/") or then[1:2] in ("/", "\\") or "\\" in then:
        return HOME
    return then if then.isprintable() and len(then) <= 1_000 else HOME
