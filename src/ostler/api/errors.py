"""The one place where errors become HTTP: statuses by kind, and problem documents (RFC 9457).

A dialect has another shape of answer for its own paths (`dialects/base.py`); the statuses are these.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from ostler.access.asgi import ASGIApp, Message, Receive, Scope, Send
from ostler.core.errors import Busy, Invalid, Kind, OstlerError
from ostler.models.service import ChangedMeanwhile

log = logging.getLogger(__name__)

HTTP_STATUS: Mapping[Kind, int] = {
    Kind.INVALID: 422,
    Kind.UNAUTHENTICATED: 401,
    Kind.NOT_ALLOWED: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.DOES_NOT_FIT: 409,
    Kind.TOO_LARGE: 413,
    Kind.RATE_LIMITED: 429,
    Kind.BUSY: 503,
    Kind.DISK_FULL: 507,
    Kind.ENGINE: 502,
    Kind.UPSTREAM: 502,
    Kind.OFFLINE: 503,
    Kind.TIMEOUT: 504,
    Kind.UNSUPPORTED: 501,
    Kind.INTERNAL: 500,
}

PROBLEM = "application/problem+json"


class BadRequest(Invalid):
    """What is answered with 400 rather than 422: a request that cannot be read as one."""


class NotJson(BadRequest):
    """The body is not JSON, or is not said to be."""

    hint = "Send one JSON object with the header Content-Type: application/json"


class BadPath(BadRequest):
    """The address holds what no name can hold."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a client is told of a failure, before it has the shape of a door.

    `wrong` are the parts of a request that are not right, as pydantic tells them (loc, msg, type).
    """

    status: int
    detail: str
    code: str
    kind: Kind
    hint: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    wrong: Sequence[Mapping[str, Any]] = ()


Shape = Callable[[Trouble, Scope], Response]
"""Makes the answer of a failure; the scope is that of the request."""

ShapeOf = Callable[[str], Shape]
"""The shape that belongs to a path: each dialect has its own."""


def problem(trouble: Trouble, _scope: Scope) -> Response:
    """A problem document. `kind`, `code`, `hint` and `facts` stand beside the members of the RFC."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(trouble.status).phrase,
        "status": trouble.status,
        "detail": trouble.detail,
        "code": trouble.code,
        "kind": trouble.kind.value,
        "hint": trouble.hint,
        "facts": trouble.facts,
    }
    text = json.dumps(body, ensure_ascii=True, default=str)
    return Response(text, trouble.status, media_type=PROBLEM, headers=dict(trouble.headers))


def status_of(error: type[OstlerError]) -> int:
    """The HTTP status that answers errors of this class."""
    return 400 if issubclass(error, BadRequest) else HTTP_STATUS[error.kind]


def trouble_of(error: OstlerError, *, if_match: bool = False) -> Trouble:
    """What a client is told of one of our errors."""
    status = 412 if if_match and isinstance(error, ChangedMeanwhile) else status_of(type(error))
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="ostler"'
    return Trouble(status, error.message, error.code, error.kind, error.hint, error.facts, headers)


def install(app: FastAPI, shape_of: ShapeOf) -> None:
    """Register the handlers of everything that a route may raise."""

    def answering(tell: Callable[[Request, Any], Trouble]) -> Callable[[Request, Exception], Any]:
        async def answer(request: Request, error: Exception) -> Response:
            return shape_of(request.scope["path"])(tell(request, error), request.scope)

        return answer

    app.add_exception_handler(OstlerError, answering(_of_ostler_error))
    app.add_exception_handler(RequestValidationError, answering(_of_validation_error))
    app.add_exception_handler(HTTPException, answering(_of_http_exception))


def _of_ostler_error(request: Request, error: OstlerError) -> Trouble:
    if error.kind is Kind.INTERNAL:
        log.error("%s %s failed: %s", request.method, request.url.path, error.message, exc_info=error)
    return trouble_of(error, if_match="if-match" in request.headers)


def _of_validation_error(_request: Request, error: RequestValidationError) -> Trouble:
    found = error.errors()[:20]
    wrong = [_one_wrong(entry) for entry in found]
    first = wrong[0] if wrong else {"field": "body", "message": "the request is not right"}
    return Trouble(
        422,
        f"{first['field']}: {first['message']}",
        "invalid_field",
        Kind.INVALID,
        hint="See the shape of this request at /docs",
        facts={"field": first["field"], "errors": wrong},
        wrong=found,
    )


def _of_http_exception(request: Request, error: HTTPException) -> Trouble:
    if isinstance(error.__cause__, OstlerError):  # raised while FastAPI read the body
        return trouble_of(error.__cause__)
    path, method = request.url.path, request.method
    if error.status_code == 404:
        return Trouble(404, f"there is nothing at {path}", "no_such_route", Kind.NOT_FOUND, "See /docs")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return Trouble(
            405,
            f"{path} does not take {method}",
            "method_not_allowed",
            Kind.INVALID,
            hint=f"It takes: {allowed}." if allowed else "See /docs",
            headers=error.headers or {},
        )
    kind = Kind.INVALID if error.status_code < 500 else Kind.INTERNAL
    return Trouble(error.status_code, str(error.detail), "http_error", kind, headers=error.headers or {})


def _one_wrong(entry: Mapping[str, Any]) -> dict[str, str]:
    place = [str(part) for part in entry["loc"]]
    field = ".".join(place[1:] if len(place) > 1 else place)
    return {"field": field, "message": str(entry["msg"]), "type": str(entry["type"])}


class SafetyNet:
    """Outermost: answers errors of the layers below, and logs what nobody expected, once."""

    def __init__(self, app: ASGIApp, shape_of: ShapeOf) -> None:
        self._app = app
        self._shape_of = shape_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except OstlerError as error:
            if started:
                raise
            await self._answer(trouble_of(error), scope, receive, watched)
        except Exception as error:
            if started:  # the connection is cut by the server, which also logs it
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            trouble = Trouble(
                500,
                "something went wrong inside Ostler",
                "internal",
                Kind.INTERNAL,
                hint="The server's log says more.",
                facts={"error": type(error).__name__},
            )
            await self._answer(trouble, scope, receive, watched)

    async def _answer(self, trouble: Trouble, scope: Scope, receive: Receive, send: Send) -> None:
        await self._shape_of(scope["path"])(trouble, scope)(scope, receive, send)
