"""Failures as Ollama tells them: `{"error": "..."}` (https://docs.ollama.com/api/errors)."""

from __future__ import annotations

import json

from fastapi.responses import Response

from ostler.access.asgi import Scope
from ostler.api.errors import Trouble
from ostler.core.errors import NotFound, OstlerError


class ModelMissing(NotFound):
    """No model has this name; clients look for the words `not found`."""


def envelope(trouble: Trouble, _scope: Scope) -> Response:
    """The answer of a failure under Ollama's paths; a field that is wrong is 400 there."""
    status = 400 if trouble.status == 422 else trouble.status
    text = json.dumps({"error": in_words(trouble.detail, trouble.hint)}, ensure_ascii=True)
    return Response(text, status, media_type="application/json", headers=dict(trouble.headers))


def in_words(message: str, hint: str | None) -> str:
    """What happened and what to do next, as one text."""
    return f"{message.rstrip('.')}. {hint}" if hint else message


def line_of(error: OstlerError) -> dict[str, str]:
    """A failure as a line of a stream that has begun."""
    return {"error": in_words(error.message, error.hint)}
