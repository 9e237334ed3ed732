"""Which headers cross the gateway, in each direction.

Never crossing: what belongs to one connection only (RFC 9110, 7.6.1, also what `Connection` names),
the client's credentials and cookies on the way in, the engine's cookies and CORS answers on the way
out. What was decided about a name is remembered, so that a request costs one look-up per header.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable
from enum import Enum

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
        "x-ostler-priority",
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


class Said(Enum):
    """What a header means to the gateway itself."""

    NOTHING = 0
    ONCE = 1
    CONTENT_TYPE = 2
    CONTENT_LENGTH = 3
    CONTENT_ENCODING = 4
    ORIGIN = 5
    REQUEST_ID = 6
    MODEL = 7
    CONNECTION = 8
    PRIORITY = 9


_SAID = {
    b"host": Said.ONCE,
    b"authorization": Said.ONCE,
    b"x-api-key": Said.ONCE,
    b"content-type": Said.CONTENT_TYPE,
    b"content-length": Said.CONTENT_LENGTH,
    b"content-encoding": Said.CONTENT_ENCODING,
    b"origin": Said.ORIGIN,
    b"x-request-id": Said.REQUEST_ID,
    b"x-ostler-model": Said.MODEL,
    b"x-ostler-priority": Said.PRIORITY,
    b"connection": Said.CONNECTION,
}


class Incoming:
    """What the headers of one request say. `forward` are those for the engine."""

    __slots__ = (
        "content_encoding",
        "content_length",
        "content_type",
        "forward",
        "model",
        "origin",
        "priority",
        "request_id",
    )

    def __init__(self, request_id: str) -> None:
        self.forward: list[tuple[bytes, bytes]] = []
        self.content_type = b""
        self.content_length: int | None = None
        self.content_encoding = b""
        self.origin: bytes | None = None
        self.model: bytes | None = None
        self.priority: bytes | None = None
        self.request_id = request_id


class HeaderRules:
    """Decides, and remembers what it decided. `new_id` makes ids for requests that bring none."""

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        self._new_id = new_id or request_ids()
        self._in: dict[bytes, tuple[bool, Said]] = {}
        self._out: dict[bytes, bool] = {}

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> Incoming:
        """Sort a request's headers. Raises BadHeader for one that may be there once and is there twice."""
        incoming = Incoming(self._new_id())
        known = self._in
        seen: list[bytes] = []
        connection: list[bytes] = []
        for name, value in headers:
            rule = known.get(name)
            if rule is None:
                rule = self._learn_in(name)
            crosses, said = rule
            if crosses:
                incoming.forward.append((name, value))
            if said is Said.NOTHING:
                continue
            if said is Said.CONNECTION:
                connection.append(value)
                continue
            if name in seen:
                raise BadHeader(f"the header {name.decode('latin-1')} is there more than once")
            seen.append(name)
            if said is not Said.ONCE:
                _take(incoming, said, value)
        if connection:
            incoming.forward = _without_named(incoming.forward, connection)
        return incoming

    def outgoing(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """An engine's headers, as the client gets them."""
        known = self._out
        crossing: list[tuple[bytes, bytes]] = []
        connection: list[bytes] = []
        for header in headers:
            name = header[0]
            crosses = known.get(name)
            if crosses is None:
                crosses = self._learn_out(name)
            if crosses:
                crossing.append(header)
            elif name == b"connection":
                connection.append(header[1])
        return _without_named(crossing, connection) if connection else crossing

    def _learn_in(self, name: bytes) -> tuple[bool, Said]:
        text = name.decode("latin-1")
        crosses = text.isascii() and text not in _NOT_IN and _SECRET.search(text) is None
        rule = (crosses, _SAID.get(name, Said.NOTHING))
        if len(self._in) < _REMEMBERED:
            self._in[name] = rule
        return rule

    def _learn_out(self, name: bytes) -> bool:
        crosses = name.decode("latin-1") not in _NOT_OUT
        if len(self._out) < _REMEMBERED:
            self._out[name] = crosses
        return crosses


def request_ids() -> Callable[[], str]:
    """Ids that are unique over restarts and cheap to make: a random beginning and a number."""
    begin = secrets.token_hex(6)
    numbers = itertools.count(1)
    return lambda: f"{begin}-{next(numbers):06x}"


def _take(incoming: Incoming, said: Said, value: bytes) -> None:
    if said is Said.CONTENT_TYPE:
        incoming.content_type = value
    elif said is Said.CONTENT_LENGTH:
        if not value.isdigit():
            raise BadHeader("the header content-length is not a number")
        incoming.content_length = int(value)
    elif said is Said.REQUEST_ID:
        if _REQUEST_ID.fullmatch(value):
            incoming.request_id = value.decode()
    elif said is Said.CONTENT_ENCODING:
        incoming.content_encoding = value.lower()
    elif said is Said.ORIGIN:
        incoming.origin = value
    elif said is Said.MODEL:
        incoming.model = value
    elif said is Said.PRIORITY:
        incoming.priority = value


def _without_named(headers: list[tuple[bytes, bytes]], connection: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers without those that `Connection` says are for this connection only."""
    named = {part.strip().lower() for value in connection for part in value.split(b",")}
    if named <= _PLAIN:
        return headers
    return [header for header in headers if header[0] not in named]


_PLAIN = {b"keep-alive", b"close"}
