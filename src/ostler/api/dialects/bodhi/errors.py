"""How failures look in BodhiApp's API: `{"error": {"message", "type", "code", "param"}}`.

`hint` and `params` (names and numbers) stand beside. What is wrong with a request is always 400 there.
This is the only place where our errors get BodhiApp's words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Response

from ostler.access.asgi import Scope
from ostler.api.errors import BadRequest, Trouble
from ostler.core.errors import Kind, NotFound, Unauthenticated

VALIDATION, JSON_REJECTION = "obj_validation_error-validation_errors", "json_rejection_error"

CODES: Mapping[str, str] = {
    "not_json": JSON_REJECTION,
    "bad_path": "bad_request_error",
    "invalid_field": VALIDATION,
    "model_not_found": "alias_not_found",
    "name_taken": "alias_exists",
    "alias_missing": "create_alias_error-alias_not_present",
    "alias_mismatch": "create_alias_error-alias_mismatch",
    "file_not_in_cache": "hub_file_not_found_error",
    "file_already_there": "pull_error-file_already_exists",
    "predefined_not_found": "remote_model_not_found_error",
    "predefined_file_unusable": "data_file_error",
    "bad_spec": VALIDATION,
    "job_not_found": "item_not_found",
    "job_not_retryable": "download_service_error-not_retryable",
    "job_not_over": "download_service_error-cannot_archive_active",
    "repo_not_found": "hub_api_error-not_exists",
    "no_such_file": "hub_api_error-not_exists",
    "gated_repo": "hub_api_error-gated_access",
    "hub_unreachable": "hub_api_error-transport",
    "key_not_found": "entity_error-not_found",
    "key_disabled": "auth_error-token_inactive",
    "key_not_for_this": "api_auth_error-missing_auth",
    "unknown_setting": "settings_error-not_found",
    "fixed_setting": "settings_error-unsupported",
    "bodhi_home_setting": "settings_error-bodhi_home",
    "setting_value": "settings_metadata_error-invalid_value",
    "setting_type": "settings_metadata_error-invalid_value_type",
    "setting_null": "settings_metadata_error-null_value",
    "already_set_up": "app_service_error-already_setup",
    "no_such_route": "route_not_found",
}
"""BodhiApp's codes by ours; those that stand in no list are given as they are."""

_BY_KIND: Mapping[Kind, str] = {
    Kind.UNAUTHENTICATED: "unauthorized",
    Kind.NOT_ALLOWED: "forbidden",
    Kind.INTERNAL: "internal_server_error",
}
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "forbidden_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}
_OURS_IN_400 = ("job_not_retryable", "job_not_over")
"""Conflicts that BodhiApp answers with 400."""


class AliasMissing(BadRequest):
    """A new alias needs a name."""


class AliasMismatch(BadRequest):
    """The name in the path and the one in the body are not the same."""


class FileAlreadyThere(BadRequest):
    """What is to be pulled is in the cache."""


class FileNotInCache(NotFound):
    """No such file is in that snapshot of the repo in the hub cache."""


class KeyNotForThis(Unauthenticated):
    """The route is for people who have signed in, not for keys."""

    hint = "Sign in with name and password in a browser."


class UnknownSetting(NotFound):
    """BodhiApp has no such setting, or Ostler has nothing like it."""


class FixedSetting(BadRequest):
    """The setting cannot be changed over the API."""


class BodhiHomeSetting(FixedSetting):
    """The folder of the server's own data cannot be changed while it runs."""


class SettingValue(BadRequest):
    """The setting cannot have this value."""


class SettingType(SettingValue):
    """The value has another type than the setting."""


class SettingNull(SettingValue):
    """A setting cannot be null; DELETE gives it back to its default."""


class AlreadySetUp(BadRequest):
    """The server has administrators already."""


def envelope(trouble: Trouble, _scope: Scope) -> Response:
    """The answer of a failure under BodhiApp's paths."""
    status = 400 if trouble.status == 422 or trouble.code in _OURS_IN_400 else trouble.status
    code = _code(trouble)
    error: dict[str, Any] = {"message": trouble.detail, "type": _type(status, code), "code": code}
    if field := trouble.facts.get("field"):
        error["param"] = str(field)
    if trouble.hint:
        error["hint"] = trouble.hint
    if params := {name: value for name, value in trouble.facts.items() if name != "field"}:
        error["params"] = params
    text = json.dumps({"error": error}, ensure_ascii=True, default=str)
    return Response(text, status, media_type="application/json", headers=dict(trouble.headers))


def _code(trouble: Trouble) -> str:
    if trouble.wrong:  # pydantic's list: of the body, or of the address
        return JSON_REJECTION if trouble.wrong[0]["loc"][0] == "body" else "bad_request_error"
    return CODES.get(trouble.code) or _BY_KIND.get(trouble.kind) or trouble.code


def _type(status: int, code: str) -> str:
    if status == 400:
        return "validation_error" if code == VALIDATION else "invalid_request_error"
    return _TYPES.get(status, "internal_server_error")
