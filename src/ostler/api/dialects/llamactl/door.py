"""The door of llamactl's routes: three places for a key, three classes of routes, lenient bodies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from ostler.access.headers import key_in_header
from ostler.api.door import Door, StrictRequest, needs, open_to_all, refuse_constant
from ostler.core.errors import Unauthenticated
from ostler.core.principals import Principal, Role


class NotForManagement(Unauthenticated):
    """A key for inference asks to manage: to llamactl it is none at all there."""

    hint = "Use a management key: one with the role manager or admin."


def management() -> dict[str, Any]:
    """For a route's decorator: class M, everything under /api/v1."""
    return needs(Role.MANAGER)


def inference() -> dict[str, Any]:
    """For a route's decorator: class I, what any key may ask of an instance."""
    return needs(Role.USER)


def public() -> dict[str, Any]:
    """For a route's decorator: class P, what needs no key."""
    return open_to_all()


class FirstJson(StrictRequest):
    """Reads the first JSON value of a body and passes over what follows it, as llamactl does."""

    def read_json(self, body: bytes) -> Any:
        """The value. Raises ValueError, RecursionError."""
        value, _ = json.JSONDecoder(parse_constant=refuse_constant).raw_decode(body.decode().lstrip())
        return value


class LlamactlDoor(Door):
    """A key in `Authorization: Bearer`, in `X-API-Key` or, where neither is there, in `?api_key=`.

    The key leaves the query string before anything else reads it. Below the role manager a key does
    not exist for the routes that manage.
    """

    asks_content_type = False
    reads = FirstJson

    @classmethod
    def prepare(cls, request: Request) -> None:
        """Take the key out of the query."""
        scope = request.scope
        query: bytes = scope.get("query_string", b"")
        scope["headers"], scope["query_string"] = key_in_header(scope["headers"], query)

    @classmethod
    def let_in(cls, principal: Principal, role: Role, what: str) -> None:
        """Raise NotForManagement for a key of a lower role."""
        if principal.role < role:
            raise NotForManagement(f"{principal.name} may not {what}")


class CompactJson(JSONResponse):
    """JSON without spaces, and a line's end after it: as llamactl writes it."""

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return super().render(content) + b"\n"


class LlamactlRouter(APIRouter):
    """A router of such doors. Paths are whole; `group_root` is for those that also end in a slash."""

    def __init__(self, noun: str) -> None:
        super().__init__(
            tags=[f"llamactl: {noun}"], route_class=LlamactlDoor, default_response_class=CompactJson
        )

    def at(self, method: str, *paths: str, **more: Any) -> Callable[[Callable[..., Any]], Any]:
        """A decorator: one handler at several paths; those that end in a slash are not documented."""

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            for path in paths:
                shown = not path.endswith("/")
                self.add_api_route(path, handler, methods=[method], include_in_schema=shown, **more)
            return handler

        return register

    def group_root(self, method: str, *paths: str, **more: Any) -> Callable[[Callable[..., Any]], Any]:
        """A decorator: one handler at these paths, each also with a slash at its end."""
        both = [form for path in paths for form in (path, f"{path}/")]
        return self.at(method, *both, **more)


class LlamactlBody(BaseModel):
    """A request's body. Keys that are not known are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)
