"""What goes wrong at this door, and the shape in which each kind of client is told.

OpenAI clients read `{"error": {message, type, code, param}}`
(https://platform.openai.com/docs/guides/error-codes), Anthropic clients
`{"type": "error", "error": {type, message}}` (https://docs.anthropic.com/en/api/errors), Ollama's
`{"error": message}` (https://docs.ollama.com/api/errors). Once a stream has begun, an error is an event
in it.
"""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import Any

from ostler.core.errors import (
    Busy,
    EngineError,
    Invalid,
    InvalidField,
    Kind,
    NotAllowed,
    NotFound,
    OstlerError,
    TimedOut,
    TooLarge,
    Unsupported,
)

HTTP_STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
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

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Dialect(Enum):
    """Whose error shape a path speaks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


class BodyTooLarge(TooLarge):
    """The request's body is over the limit."""

    hint = "The limit is the setting request_body_limit_bytes."


class BadBody(Invalid):
    """The body is not what it says it is."""


class BadHeader(Invalid):
    """A header is there twice or cannot be read."""


class MissingModel(InvalidField):
    """The request does not say which model is meant."""


class ModelNotAllowed(NotAllowed):
    """The key's list of models does not have this one."""

    hint = "Ask an administrator for a key that may use it. See those you may use: GET /v1/models"


class UnknownRoute(NotFound):
    """There is nothing at this path."""


class WrongMethod(Unsupported):
    """The path exists, and does not take this method."""


class EngineGone(Busy):
    """The engine died or could not be reached. `reached`: something of the request may have arrived."""

    reached = True


class EngineSilent(TimedOut):
    """The engine said nothing for too long."""

    hint = "The limit is the setting upstream_timeout_s."


class EngineRefused(EngineError):
    """The engine did not take Ostler's own key."""

    hint = "Restart the model: ostler restart MODEL"


class SilentClient(Invalid):
    """The client began a request and did not go on."""


class ClientGone(Exception):
    """The client closed its connection: nobody is there to be told anything."""


def status_of(error: OstlerError) -> int:
    """The HTTP status of an error."""
    return 405 if isinstance(error, WrongMethod) else HTTP_STATUS.get(error.kind, 500)


def error_body(dialect: Dialect, error: OstlerError) -> bytes:
    """The JSON body that tells a client of this dialect."""
    param = error.facts.get("field") or ("model" if "model" in error.facts else None)
    text = in_words(error) if dialect is Dialect.OLLAMA else sentence(error)
    return envelope(dialect, status_of(error), text, code=error.code, param=param)


def sentence(error: OstlerError) -> str:
    """The message and what to try next, as sentences."""
    message = in_words(error)
    return message[:1].upper() + message[1:]


def in_words(error: OstlerError) -> str:
    """The message and what to try next, as one text."""
    return error.message if not error.hint else f"{error.message.rstrip('.')}. {error.hint}"


def envelope(
    dialect: Dialect,
    status: int,
    message: str,
    *,
    kind: str | None = None,
    code: Any = None,
    param: Any = None,
) -> bytes:
    """An error body in the dialect's shape."""
    kind = kind or _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body: dict[str, Any]
    if dialect is Dialect.ANTHROPIC:
        body = {"type": "error", "error": {"type": kind, "message": message}}
    elif dialect is Dialect.OLLAMA:
        body = {"error": message}
    else:
        body = {"error": {"message": message, "type": kind, "code": code, "param": param}}
    return json.dumps(body).encode()


def error_headers(error: OstlerError) -> list[tuple[bytes, bytes]]:
    """The headers that belong to an error: when to ask again, how to sign in."""
    if isinstance(error, Busy):
        return [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s)))]
    if error.kind is Kind.UNAUTHENTICATED:
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, WrongMethod):
        return [(b"allow", str(error.facts.get("allow", "")).encode())]
    return []


def error_event(dialect: Dialect, body: bytes) -> bytes:
    """An error body as a server-sent event that ends a stream."""
    if dialect is Dialect.ANTHROPIC:
        return b"event: error\ndata: " + body + b"\n\n"
    if dialect is Dialect.RESPONSES:
        flat = {**json.loads(body)["error"], "type": "error", "sequence_number": 0}
        return b"event: error\ndata: " + json.dumps(flat).encode() + b"\n\n"
    return b"data: " + body + b"\n\n"


def true_status(dialect: Dialect, status: int, body: bytes) -> int:
    """400 where llama.cpp says 500 on an Anthropic path for a field that the client left out."""
    if dialect is Dialect.ANTHROPIC and status == 500 and b"' is required" in body:
        return 400
    return status


def normalised(dialect: Dialect, status: int, body: bytes) -> bytes | None:
    """An engine's error body in the dialect's shape; None when it is in it already.

    llama.cpp says `{"error": {"code": 400, "message", "type"}}` on every path, which OpenAI clients
    understand and Anthropic clients do not; other engines say `{"detail": ...}`, or plain text.
    """
    said = parsed(body)
    error = said.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        if dialect is not Dialect.ANTHROPIC or said.get("type") == "error":
            return None
        kind = error.get("type") if status >= 500 or error.get("type") != "server_error" else None
        return envelope(dialect, status, error["message"], kind=kind if isinstance(kind, str) else None)
    message = error if isinstance(error, str) else said.get("message") or said.get("detail")
    if not isinstance(message, str):
        message = json.dumps(message) if message else body[:2000].decode("utf-8", "replace").strip()
    code = said.get("code")
    return envelope(dialect, status, message or f"the engine answered {status}", code=code)


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; empty for anything else."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
