"""How failures look in llamactl's API: `{"error": <word>, "details": <sentence>}`.

Who does not come in gets another shape, that of OpenAI's errors. This is the only place where our
errors get llamactl's words; a route that has a word of its own for a failure raises `Refused`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Depends, Request, Response

from ostler.access.asgi import Scope
from ostler.access.headers import read_credentials
from ostler.api.errors import Trouble
from ostler.core.errors import Kind

WORDS: Mapping[str, str] = {
    "model_not_found": "invalid_instance",
    "key_not_found": "not_found",
    "unknown_node": "not_found",
    "model_not_running": "instance_not_running",
    "shutting_down": "instance_shutting_down",
    "bad_body": "invalid_request",
    "bad_backend": "invalid_request",
    "not_json": "invalid_request",
    "invalid_field": "invalid_request",
    "no_such_route": "not_found",
    "cached_model_not_found": "model_not_found",
    "no_such_job": "job_not_found",
    "model_not_allowed": "permission_denied",
    "not_allowed": "permission_denied",
}
"""llamactl's words by the codes of our errors; other codes are answered as they are."""


_WORD = "ostler.llamactl.word"


def says(word: str) -> Any:
    """A route's dependency: what fails there and has no word in WORDS is answered with this one."""

    def remember(request: Request) -> None:
        request.scope[_WORD] = word

    return Depends(remember)


def shape(trouble: Trouble, scope: Scope) -> Response:
    """The answer of a failure under llamactl's paths."""
    if trouble.kind is Kind.UNAUTHENTICATED:
        known = read_credentials(scope["headers"]).token is not None
        told = {"message": "Invalid API key" if known else "Missing API key", "type": "authentication_error"}
        # With the spaces of the default: programs look for the text "type": "authentication_error".
        text = json.dumps({"error": told})
        return Response(text, 401, media_type="application/json", headers=dict(trouble.headers))
    status = 400 if trouble.status == 422 else trouble.status
    own = trouble.code if trouble.status in (400, 405, 500) else scope.get(_WORD, trouble.code)
    body: dict[str, Any] = {"error": WORDS.get(trouble.code, own), "details": trouble.detail}
    if trouble.hint:
        body["hint"] = trouble.hint
    text = json.dumps(body, separators=(",", ":"), default=str) + "\n"
    return Response(text, status, media_type="application/json", headers=dict(trouble.headers))
