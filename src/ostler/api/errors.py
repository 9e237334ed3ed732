"""The one place where errors become HTTP: statuses by kind, and problem documents (RFC 9457)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
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


class NotJson(Invalid):
    """The body is not JSON, or is not said to be."""

    hint = "Send one JSON object with the header Content-Type: application/json"


class BadPath(Invalid):
    """The address holds what no name can hold."""


def problem(
    status: int,
    detail: str,
    *,
    code: str,
    kind: Kind,
    hint: str | None = None,
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document. `kind`, `code`, `hint` and `facts` stand beside the members of the RFC."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "kind": kind.value,
        "hint": hint,
        "facts": facts or {},
    }
    text = json.dumps(body, ensure_ascii=True, default=str)
    return Response(text, status, media_type=PROBLEM, headers=dict(headers or {}))


def problem_of(error: OstlerError, *, if_match: bool = False) -> Response:
    """The problem document of one of our errors; internal ones say nothing of the inside."""
    status = HTTP_STATUS[error.kind]
    if isinstance(error, NotJson | BadPath):
        status = 400
    elif if_match and isinstance(error, ChangedMeanwhile):
        status = 412
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="ostler"'
    return problem(
        status,
        error.message,
        code=error.code,
        kind=error.kind,
        hint=error.hint,
        facts=error.facts,
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Register the handlers of everything that a route may raise."""
    app.add_exception_handler(OstlerError, _on_ostler_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_ostler_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OstlerError)
    if error.kind is Kind.INTERNAL:
        log.error("%s %s failed: %s", request.method, request.url.path, error.message, exc_info=error)
    return problem_of(error, if_match="if-match" in request.headers)


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = [_one_wrong(entry) for entry in error.errors()[:20]]
    first = wrong[0] if wrong else {"field": "body", "message": "the request is not right"}
    return problem(
        422,
        f"{first['field']}: {first['message']}",
        code="invalid_field",
        kind=Kind.INVALID,
        hint="See the shape of this request at /docs",
        facts={"field": first["field"], "errors": wrong},
    )


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OstlerError):  # raised while FastAPI read the body
        return problem_of(error.__cause__)
    path, method = request.url.path, request.method
    if error.status_code == 404:
        return problem(
            404, f"there is nothing at {path}", code="no_such_route", kind=Kind.NOT_FOUND, hint="See /docs"
        )
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return problem(
            405,
            f"{path} does not take {method}",
            code="method_not_allowed",
            kind=Kind.INVALID,
            hint=f"It takes: {allowed}." if allowed else "See /docs",
            headers=error.headers,
        )
    kind = Kind.INVALID if error.status_code < 500 else Kind.INTERNAL
    return problem(error.status_code, str(error.detail), code="http_error", kind=kind, headers=error.headers)


def _one_wrong(entry: Mapping[str, Any]) -> dict[str, str]:
    place = [str(part) for part in entry["loc"]]
    field = ".".join(place[1:] if len(place) > 1 else place)
    return {"field": field, "message": str(entry["msg"]), "type": str(entry["type"])}


class SafetyNet:
    """Outermost: answers errors of the layers below, and logs what nobody expected, once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
            await problem_of(error)(scope, receive, watched)
        except Exception as error:
            if started:  # the connection is cut by the server, which also logs it
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = problem(
                500,
                "something went wrong inside Ostler",
                code="internal",
                kind=Kind.INTERNAL,
                hint="The server's log says more.",
                facts={"error": type(error).__name__},
            )
            await answer(scope, receive, watched)
