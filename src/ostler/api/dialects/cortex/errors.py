"""How failures look in Cortex's API.

An envelope `{"error": {"code": <status>, "message": <word>}, "request_id": ...}` with our sentence and
hint beside the word; a list of what is wrong for 422, as FastAPI has it; one string for 413 and 429.
This is the only place where our errors get Cortex's words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Response

from ostler.access.asgi import Scope
from ostler.api.dialects.base import request_id_of
from ostler.api.errors import Trouble
from ostler.core.errors import Kind

WORDS: Mapping[str, str] = {
    "no_such_route": "Not Found",
    "method_not_allowed": "Method Not Allowed",
    "wrong_password": "invalid_credentials",
    "wrong_address": "IP not allowed",
    "user_name_taken": "username_exists",
    "organisation_name_taken": "name_exists",
    "recipe_name_taken": "Recipe name already exists",
    "recipe_not_found": "Recipe not found",
    "no_model_for_recipe": "Model not found",
    "no_model_to_test": "model_not_found",
    "chat_not_found": "Session not found",
    "folder_not_found": "folder_not_found",
    "config_not_found": "config_not_found",
}
"""Cortex's words by the codes of our errors."""

_BY_KIND: Mapping[Kind, str] = {
    Kind.UNAUTHENTICATED: "unauthenticated",
    Kind.NOT_ALLOWED: "forbidden",
    Kind.NOT_FOUND: "not_found",
    Kind.INTERNAL: "internal_server_error",
}


def envelope(trouble: Trouble, scope: Scope) -> Response:
    """The answer of a failure under Cortex's paths."""
    body: dict[str, Any]
    if trouble.status in (413, 429):
        body = {"error": trouble.detail}
    elif trouble.status == 422:
        body = {"detail": _wrong(trouble)}
    else:
        error = {
            "code": trouble.status,
            "message": _word(trouble),
            "detail_text": trouble.detail,
            "hint": trouble.hint,
        }
        if trouble.facts:
            error["facts"] = trouble.facts
        body = {"error": error, "request_id": request_id_of(scope)}
    text = json.dumps(body, ensure_ascii=True, default=str)
    return Response(text, trouble.status, media_type="application/json", headers=dict(trouble.headers))


def _word(trouble: Trouble) -> str:
    by_code = WORDS.get(trouble.code) or (trouble.code if trouble.status == 400 else None)
    return by_code or _BY_KIND.get(trouble.kind) or trouble.detail


def _wrong(trouble: Trouble) -> list[dict[str, Any]]:
    """FastAPI's list: where, what and of which sort."""
    if trouble.wrong:
        return [{"loc": list(e["loc"]), "msg": str(e["msg"]), "type": str(e["type"])} for e in trouble.wrong]
    field = str(trouble.facts.get("field") or "")
    wrong = {"loc": ["body", *field.split(".")] if field else ["body"], "msg": trouble.detail}
    return [{**wrong, "type": trouble.code, "hint": trouble.hint}]
