"""Which headers cross the gateway, in each direction.

Never crossing: what belongs to one connection only (RFC 9110, 7.6.1, also what `Connection` names),
the client's credentials and cookies on the way in, the engine's cookies and CORS answers on the way
out. What was decided about a name is remembered, so that a request costs one look-up per header.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from ostler.gateway.errors import BadHeader

_HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ]
)
_NOT_IN = _HOP_BY_HOP | frozenset(
    [
        "authorization",
        "x-api-key",
        "api-key",
        "cookie",
        "x-csrf-token",
        "host",
        "content-length",
        "accept-encoding",
        "expect",
        "origin",
        "referer",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "x-ostler-model",
    ]
)
_NOT_OUT = _HOP_BY_HOP | frozenset(
    [
        "set-cookie",
        "set-cookie2",
        "server",
        "date",
        "location",
        "x-request-id",
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-expose-headers",
        "access-control-max-age",
        "www-authenticate",
        "x-powered-by",
    ]
)
_SECRET = re.compile(r"(^|-)(authorization|auth|api-?key|token|secret|password|cookie)s?($|-)")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")
_REMEMBERED = 512

ONCE = frozenset(
    (b"host", b"authorization", b"x-api-key", b"content-type", b"content-length", b"content-encoding")
)
"""Headers that may be there once only: twice, nobody can say which one counts."""


@dataclass(slots=True)
class Incoming:
    """What the headers of one request say. `forward` are those for the engine."""

    forward: list[tuple[str, str]] = field(default_factory=list)
    content_type: bytes = b""
    content_length: int | None = None
    content_encoding: bytes = b""
    origin: bytes | None = None
    model: bytes | None = None
    request_id: str = ""


class HeaderRules:
    """Decides, and remembers what it decided."""

    def __init__(self) -> None:
        self._in: dict[bytes, str | None] = {}
        self._out: dict[str, bytes | None] = {}

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> Incoming:
        """Sort a request's headers. Raises BadHeader."""
        incoming = Incoming()
        forward = incoming.forward
        known = self._in
        seen: set[bytes] | None = None
        dropped: bytes | None = None
        for name, value in headers:
            try:
                goes_as = known[name]
            except KeyError:
                goes_as = self._learn_in(name)
            if goes_as is not None and value.isascii():
                forward.append((goes_as, value.decode()))
            if name in ONCE or name in _READ:
                if name in ONCE:
                    if seen is None:
                        seen = set()
                    elif name in seen:
                        raise BadHeader(f"the header {name.decode('latin-1')} is there more than once")
                    seen.add(name)
                if name == b"connection":
                    dropped = value if dropped is None else dropped + b"," + value
                else:
                    _take(incoming, name, value)
        if dropped is not None and dropped not in _PLAIN_CONNECTION:
            named = {part.strip().lower() for part in dropped.decode("latin-1").split(",")}
            incoming.forward = [(name, value) for name, value in forward if name not in named]
        if not incoming.request_id:
            incoming.request_id = secrets.token_hex(12)
        return incoming

    def outgoing(self, headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
        """An engine's headers, as the client gets them."""
        known = self._out
        crossing: list[tuple[bytes, bytes]] = []
        named: set[str] | None = None
        for name, value in headers:
            if name == "connection" and value.lower() not in ("close", "keep-alive"):
                named = {part.strip().lower() for part in value.split(",")}
            try:
                goes_as = known[name]
            except KeyError:
                goes_as = self._learn_out(name)
            if goes_as is not None:
                crossing.append((goes_as, value.encode("latin-1", "ignore")))
        if named:
            return [(name, value) for name, value in crossing if name.decode() not in named]
        return crossing

    def _learn_in(self, name: bytes) -> str | None:
        text = name.decode("latin-1").lower()
        goes_as = None if not text.isascii() or text in _NOT_IN or _SECRET.search(text) else text
        if len(self._in) < _REMEMBERED:
            self._in[name] = goes_as
        return goes_as

    def _learn_out(self, name: str) -> bytes | None:
        goes_as = None if name in _NOT_OUT else name.encode("latin-1")
        if len(self._out) < _REMEMBERED:
            self._out[name] = goes_as
        return goes_as


_READ = frozenset((b"origin", b"x-request-id", b"x-ostler-model", b"connection"))
_PLAIN_CONNECTION = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))


def _take(incoming: Incoming, name: bytes, value: bytes) -> None:
    if name == b"content-type":
        incoming.content_type = value
    elif name == b"content-length":
        if not value.isdigit():
            raise BadHeader("the header content-length is not a number")
        incoming.content_length = int(value)
    elif name == b"x-request-id":
        if _REQUEST_ID.fullmatch(value):
            incoming.request_id = value.decode()
    elif name == b"content-encoding":
        incoming.content_encoding = value.lower()
    elif name == b"origin":
        incoming.origin = value
    elif name == b"x-ostler-model":
        incoming.model = value
