"""What a dialect says of itself: which paths are its own, how its errors look, which headers it sends."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from ostler.access.asgi import ASGIApp, Message, Receive, Scope, Send
from ostler.api.errors import BadRequest, Shape, ShapeOf, problem

REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One system's API.

    `owns` says of a path whether it is this system's. `routers` make its documented routes, `shape` the
    answers of its failures. `headers` (lower-case names) go into each of its answers, and its requests
    have an id, which the client may choose. `takes_files` says of a path whether whole files come in there,
    which the limit of bodies is not for.
    """

    owns: Callable[[str], bool]
    shape: Shape
    routers: tuple[APIRouter, ...]
    headers: Mapping[bytes, bytes]
    takes_files: Callable[[str], bool] = lambda path: False


class Refused(BadRequest):
    """What a dialect answers with 400 and a word of its own, such as `repo_id_required`."""

    def __init__(self, word: str, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message, hint=hint, **facts)
        self._word = word

    @property
    def code(self) -> str:
        """The dialect's word."""
        return self._word


def shapes_of(dialects: tuple[Dialect, ...]) -> ShapeOf:
    """Which shape of error a path has; problem documents where no dialect owns it."""

    def shape_of(path: str) -> Shape:
        return next((dialect.shape for dialect in dialects if dialect.owns(path)), problem)

    return shape_of


def request_id_of(scope: Scope) -> str:
    """The id of a request on a dialect's path."""
    found: str = scope.get("ostler.request_id", "")
    return found


class DialectHeaders:
    """Gives the requests on dialects' paths an id, and their answers that id and the dialect's headers."""

    def __init__(self, app: ASGIApp, dialects: tuple[Dialect, ...]) -> None:
        self._app = app
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        dialect = next((entry for entry in self._dialects if entry.owns(scope["path"])), None)
        if dialect is None:
            return await self._app(scope, receive, send)
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID.encode()), b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        ours = {**dialect.headers, REQUEST_ID.encode(): request_id.encode()}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers") or () if pair[0].lower() not in ours]
                message = {**message, "headers": [*headers, *ours.items()]}
            await send(message)

        return await self._app({**scope, "ostler.request_id": request_id}, receive, with_headers)
