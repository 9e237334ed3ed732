"""Putting the API together: routes, errors, and the layers around them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ostler.access.asgi import ASGIApp, BodyLimit, BrowserDoor, Message, Receive, Scope, Send
from ostler.api import docs, errors, health
from ostler.api.dialects.base import DialectHeaders, shapes_of
from ostler.api.dialects.spoken import DIALECTS, takes_files
from ostler.api.native import (
    downloads,
    events,
    files,
    fit,
    hub,
    images,
    importing,
    instances,
    jobs,
    keys,
    models,
    organisations,
    predefined,
    recipes,
    reshaping,
    settings,
    sign_in,
    system,
    upstreams,
    usage,
    users,
)
from ostler.api.services import Services

_NOUNS = (
    models,
    recipes,
    predefined,
    instances,
    files,
    reshaping,
    downloads,
    jobs,
    events,
    hub,
    fit,
    keys,
    users,
    sign_in,
    organisations,
    settings,
    system,
    images,
    upstreams,
    usage,
    importing,
)

_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}

_ABOUT = """\
Models, files, downloads, keys and the state of the engines. Inference has the API of OpenAI, under `/v1`.

Send a key as `Authorization: Bearer ostler-...`; on loopback none is needed. `x-role` of each
operation says which role it needs. Errors are problem documents (RFC 9457) with a `code`, and a
`hint` that says what to try next.
"""


def build_api(services: Services) -> FastAPI:
    """The whole HTTP API except inference. Nothing is started; the rooms must be."""
    app = FastAPI(
        title="Ostler",
        version=services.version,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.services = services
    spoken = [router for dialect in DIALECTS for router in dialect.routers]
    for router in (*(noun.routes for noun in _NOUNS), health.routes, docs.routes, *spoken):
        # The routes themselves: include_router would make each anew, at the first request that looks at it.
        app.router.routes.extend(router.routes)
    shape_of = shapes_of(DIALECTS)
    errors.install(app, shape_of)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    current = services.settings
    app.add_middleware(
        BodyLimit, limit_bytes=lambda: current.current.request_body_limit_bytes, is_unlimited=takes_files
    )
    app.add_middleware(BrowserDoor, access=services.access)
    app.add_middleware(errors.SafetyNet, shape_of=shape_of)
    app.add_middleware(DialectHeaders, dialects=DIALECTS)
    app.add_middleware(SecurityHeaders)
    return app


class SecurityHeaders:
    """Adds what browsers should know; what a route has set stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers") or ())
                there = {name.lower() for name, _ in headers}
                headers += [pair for pair in _SECURITY_HEADERS.items() if pair[0] not in there]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: with the kinds of keys, and one shape for all errors."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        parts = document.setdefault("components", {})
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        parts.setdefault("schemas", {})["Problem"] = _PROBLEM
        for operations in document["paths"].values():
            for operation in operations.values():
                _describe(operation)
        app.openapi_schema = document
    return app.openapi_schema


def _describe(operation: dict[str, Any]) -> None:
    problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    answers = operation.setdefault("responses", {})
    answers.pop("422", None)
    answers["default"] = {"description": "What went wrong", **problem}
    operation["security"] = (
        [] if operation.get("x-role") == "none" else [{"bearer": []}, {"x-api-key": []}, {}]
    )


_PROBLEM = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "kind"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence: what happened."},
        "code": {"type": "string", "description": "Stable, for programs."},
        "kind": {"type": "string"},
        "hint": {"type": ["string", "null"], "description": "What to try next."},
        "facts": {"type": "object", "description": "Names and numbers."},
    },
}
