"""Plain ASGI layers that the doors share: foreign web pages stay out, bodies stay small.

They raise errors of the one family; the door that they wrap turns those into answers of its shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from ostler.access.headers import read_credentials
from ostler.access.service import Access
from ostler.core.errors import TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

HEAR_OUT_BYTES = 256 * 1024 * 1024
HEAR_OUT_S = 10.0
"""How much, and for how long, a refused client may go on sending."""

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_HEADERS = (
    b"authorization, content-type, x-api-key, api-key, x-csrf-token, last-event-id, if-match, x-request-id"
)


class BodyTooLarge(TooLarge):
    """A request body over the limit."""

    hint = "The setting request_body_limit_bytes raises the limit."


class BodyLimit:
    """Refuses request bodies over `limit_bytes()`: at once by Content-Length, else while they come.

    `is_unlimited` says of a path that it looks after its own bodies. Raises BodyTooLarge, from `receive` too.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_bytes: Callable[[], int],
        is_unlimited: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._is_unlimited = is_unlimited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or self._is_unlimited(scope["path"]):
            await self._app(scope, receive, send)
            return
        limit = self._limit_bytes()
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise _too_large(limit)
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body") or b"")
            if seen > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, limited, send)


class HearOut:
    """Lets a client that is refused finish sending, within bounds, before the answer ends.

    A server that closes while the client still sends resets the connection, and many clients then
    never see why they were refused. Clients that ask first (`Expect`) have nothing to finish.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not _sends_much(scope["headers"]):
            await self._app(scope, receive, send)
            return
        unheard = True

        async def hear() -> Message:
            nonlocal unheard
            message = await receive()
            unheard = unheard and bool(message.get("more_body"))
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body") and unheard:
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEAR_OUT_S):
                        await _drain(hear, lambda: unheard)
            await send(message)

        await self._app(scope, hear, answer)


async def _drain(hear: Receive, goes_on: Callable[[], bool]) -> None:
    left = HEAR_OUT_BYTES
    while goes_on() and left > 0:
        left -= len((await hear()).get("body") or b"")


def _sends_much(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    much = False
    for name, value in headers:
        if name == b"content-length":
            much = len(value) > 5  # from 100,000 bytes on
        elif name == b"transfer-encoding":
            much = True
        elif name == b"expect":
            return False
    return much


class BrowserDoor:
    """Keeps foreign pages out (on loopback), and lets allowed pages read the answers (CORS).

    Put it around the whole server. Raises ForeignHost, ForeignOrigin.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = read_credentials(scope["headers"])
        self._access.check_browser(given)
        origin = given.origin
        if origin is None or not self._access.may_read(origin):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and _asks_first(scope):
            await _answer_preflight(origin, send)
            return

        async def with_origin(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers") or ())
                if not any(name.lower() == b"access-control-allow-origin" for name, _ in headers):
                    message = {**message, "headers": [*headers, *_cors(origin)]}
            await send(message)

        await self._app(scope, receive, with_origin)


def _asks_first(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])


async def _answer_preflight(origin: str, send: Send) -> None:
    headers = [
        *_cors(origin),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _HEADERS),
        (b"access-control-max-age", b"600"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _cors(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-request-id, retry-after"),
        (b"vary", b"Origin"),
    ]


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request's body is over the limit of {limit:,} bytes", limit_bytes=limit)
