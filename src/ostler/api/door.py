"""The door of every route: who asks is known and allowed before anything of the request is read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from ostler.access.service import Access
from ostler.api.errors import BadPath, NotJson
from ostler.api.services import Services
from ostler.core.principals import Principal, Role

PREFIX = "/ostler/v1"
_ROLE = "x-role"
_OPEN = "none"


def needs(role: Role) -> dict[str, Any]:
    """What a route's decorator is given: the role it needs, which stands in /openapi.json as x-role."""
    return {"openapi_extra": {_ROLE: role.label}}


def open_to_all() -> dict[str, Any]:
    """For the few routes that need no key: health, signing in, the documentation."""
    return {"openapi_extra": {_ROLE: _OPEN}}


class StrictRequest(Request):
    """Reads JSON as the standard has it: no NaN, no Infinity, no text that cannot be stored."""

    async def json(self) -> Any:
        """The body. Raises NotJson."""
        body = await self.body()
        try:
            value = self.read_json(body)
            if b"\\u" in body:
                _refuse_odd_text(value)
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
            raise NotJson(f"the body is not valid JSON: {reason}") from error
        return value

    def read_json(self, body: bytes) -> Any:
        """The value of a body. Raises ValueError, RecursionError."""
        return json.loads(body, parse_constant=refuse_constant)


class Door(APIRoute):
    """A route that says which role it needs; one that says nothing cannot be made.

    `trusts_origin`: a session needs no CSRF token where the browser says that one of our pages asks.
    `asks_content_type`: a body must be said to be JSON; else it is read as JSON whatever it is said to be.
    """

    trusts_origin: ClassVar[bool] = False
    asks_content_type: ClassVar[bool] = True
    reads: ClassVar[type[Request]] = StrictRequest

    @classmethod
    def prepare(cls, request: Request) -> None:
        """Before it is asked who comes: for dialects whose clients say it elsewhere than in a header."""

    @classmethod
    def let_in(cls, principal: Principal, role: Role, what: str) -> None:
        """Raise an error unless this one may come in."""
        principal.require(role, what)

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler, behind the check of who asks."""
        handle = super().get_route_handler()
        label = (self.openapi_extra or {}).get(_ROLE)
        if label is None:
            raise TypeError(f"the route {self.path} does not say which role it needs")
        role = None if label == _OPEN else Role.parse(label)
        what = self.name.replace("_", " ")
        has_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            services: Services = request.app.state.services
            _refuse_nul(request)
            self.prepare(request)
            if role is not None:
                if services.access.has_foreign_keys:
                    await services.access.recognise(request.scope["headers"])
                principal = admitted(request, services.access, trust_origin=self.trusts_origin)
                self.let_in(principal, role, what)
                request.state.principal = principal
            if has_body:
                self._look_at_headers(request)
            return await handle(self.reads(request.scope, request.receive))

        return guarded

    def _look_at_headers(self, request: Request) -> None:
        """Raise NotJson where the body will not be read."""
        if self.asks_content_type:
            _expect_json(request)
            return
        others = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
        request.scope["headers"] = [*others, (b"content-type", b"application/json")]


def admitted(request: Request, access: Access, *, trust_origin: bool = False) -> Principal:
    """Who asks. Raises what Access.admit raises."""
    peer = request.client.host if request.client else None
    return access.admit(request.scope["headers"], request.method, peer, trust_origin=trust_origin)


def router(tag: str) -> APIRouter:
    """A router of doors under /ostler/v1."""
    return APIRouter(prefix=PREFIX, tags=[tag], route_class=Door)


def refuse_constant(name: str) -> None:
    """For json: NaN and Infinity are no JSON. Raises ValueError."""
    raise ValueError(f"{name} is not a number in JSON")


def _refuse_odd_text(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text:
        raise ValueError("a text holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half a character (a lone surrogate)") from None


def _refuse_nul(request: Request) -> None:
    if "\0" in request.scope["path"] or b"%00" in request.scope.get("query_string", b""):
        raise BadPath("the address holds a NUL character")


def _expect_json(request: Request) -> None:
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if has_body and packed not in ("", "identity"):
        raise NotJson(
            f"the body is compressed ({packed}), which is not read here", hint="Send it uncompressed."
        )
    if has_body and not (said == "application/json" or said.endswith("+json")):
        raise NotJson(f"the body is said to be {said or 'nothing in particular'}, not JSON")
