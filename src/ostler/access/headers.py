"""What a request says about who sends it, read from its raw headers in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import unquote_plus

from ostler.access.sessions import COOKIES

RawHeaders = Iterable[tuple[bytes, bytes]]
"""Headers as ASGI hands them over: lower-case names, values as bytes."""

_PROXY = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"})


@dataclass(slots=True)
class Credentials:
    """The headers that matter here. `proxied`: a proxy says that it stands between.

    `fetch_site` is what a browser says about the page that asks (Sec-Fetch-Site).
    """

    token: str | None = None
    session_cookies: tuple[str, ...] = ()
    csrf_token: str | None = None
    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    proxied: bool = False
    forwarded_for: str | None = None


def read_credentials(headers: RawHeaders) -> Credentials:
    """Take a token from Authorization (Bearer), x-api-key or api-key, in this order, and the rest."""
    found = Credentials()
    bearer: str | None = None
    api_key: str | None = None
    for name, value in headers:
        match name:
            case b"authorization":
                bearer = _bearer(value) or bearer
            case b"x-api-key" | b"api-key":
                api_key = value.decode("latin-1").strip() or api_key
            case b"host":
                found.host = value.decode("latin-1")
            case b"origin":
                found.origin = value.decode("latin-1")
            case b"sec-fetch-site":
                found.fetch_site = value.decode("latin-1")
            case b"cookie":
                found.session_cookies += _cookies(value)
            case b"x-csrf-token":
                found.csrf_token = value.decode("latin-1")
            case _ if name in _PROXY:
                found.proxied = True
                if name == b"x-forwarded-for":
                    hops = (found.forwarded_for, value.decode("latin-1"))
                    found.forwarded_for = ",".join(filter(None, hops))
    found.token = bearer or api_key
    return found


KEY_IN_QUERY = "api_key"


def key_in_header(headers: RawHeaders, query: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Take `api_key` out of a query string: it counts as x-api-key where no header brings a key.

    What comes back may be passed on and written down; the rest of the query stays as it came.
    """
    given = list(headers)
    if b"%" not in query and KEY_IN_QUERY.encode() not in query:
        return given, query
    pairs = [(pair, *pair.partition("=")) for pair in query.decode("latin-1").split("&")]
    keys = [unquote_plus(value) for _, name, _, value in pairs if unquote_plus(name) == KEY_IN_QUERY]
    rest = "&".join(pair for pair, name, _, _ in pairs if unquote_plus(name) != KEY_IN_QUERY)
    if keys and keys[0] and read_credentials(given).token is None:
        given.append((b"x-api-key", keys[0].encode("latin-1", "replace")))
    return given, rest.encode("latin-1")


def _bearer(value: bytes) -> str | None:
    scheme, _, token = value.decode("latin-1").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _cookies(value: bytes) -> tuple[str, ...]:
    """Values under the names of sessions, ours first."""
    if not any(name.encode() in value for name in COOKIES):
        return ()
    try:
        cookies = SimpleCookie(value.decode("latin-1"))
    except CookieError:
        return ()
    return tuple(cookies[name].value for name in COOKIES if name in cookies)
