"""What answers in BodhiApp's API look like."""

from __future__ import annotations

from typing import Any

import httpx2


def bodhi_error(answer: httpx2.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The `error` of an answer, checked for its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert (
        {"message", "type", "code"} <= error.keys() <= {"message", "type", "code", "param", "hint", "params"}
    )
    assert error["message"] and error["type"] and error["code"]
    if code is not None:
        assert error["code"] == code, error
    return error
