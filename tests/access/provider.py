"""A provider of sign-ins whose every answer a test can falsify, and a browser that goes there and back."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

KEY = RSAKey.generate_key(2048, {"kid": "one"})
CLIENT, SECRET = "ostler", "a secret that is shared"


@dataclass
class FakeProvider:
    """An honest provider, until `claims`, `about`, `answers` or `key` are changed.

    `answers` maps a path to (status, body) that are sent in place of the true ones.
    """

    url: str = ""
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "ada-1", "preferred_username": "ada"})
    claims: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: KEY)
    published: RSAKey | None = None
    algorithm: str = "RS256"
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.asked.append(scope["path"])
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, answer = self.answers.get(scope["path"]) or self._answer(scope["path"], headers, body)
        kind = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": kind})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if path == "/.well-known/openid-configuration":
            about = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "id_token_signing_alg_values_supported": ["RS256", "none", "HS256"],
            }
            return 200, json.dumps(about | self.about).encode()
        if path == "/keys":
            return 200, json.dumps(KeySet([self.published or self.key]).as_dict(private=False)).encode()
        if path == "/userinfo":
            return 200, json.dumps({"sub": self.person["sub"], **self.userinfo}).encode()
        return self._token(headers, dict(parse_qsl(body.decode())))

    def _token(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, bytes]:
        """The tokens for a code, with the checks that a provider has to make (RFC 6749, RFC 7636)."""
        import hashlib

        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None:
            return 400, b'{"error": "invalid_grant", "error_description": "the code is used up"}'
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        user = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '%20')}".encode()).decode()
        assert headers["authorization"] == f"Basic {user}"
        assert (asked["code_challenge_method"], asked["code_challenge"]) == ("S256", challenge)
        assert form["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": asked["nonce"],
            **self.person, **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return 200, json.dumps({"access_token": "at", "id_token": self.signed(claims)}).encode()

    def signed(self, claims: dict[str, Any]) -> str:
        if self.algorithm == "none":
            parts = [{"alg": "none"}, claims]
            body = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts]
            return f"{body[0]}.{body[1]}."
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, claims, self.key)

    def authorise(self, url: str) -> str:
        """What a person does there: the address that the browser is sent back to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert "openid" in asked["scope"].split()
        code = f"code-{len(self.asked)}-{len(self.codes)}"
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}"


async def go(client: httpx2.AsyncClient, url: str) -> httpx2.Response:
    """Follow one address of the own server, by its path and query."""
    parts = urlsplit(url)
    return await client.get(f"{parts.path}?{parts.query}" if parts.query else parts.path)
