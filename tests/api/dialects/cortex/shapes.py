"""What answers in Cortex's API look like."""

from __future__ import annotations

from typing import Any

import httpx2


def envelope(answer: httpx2.Response, status: int, message: str | None = None) -> dict[str, Any]:
    """The `error` of an answer in Cortex's envelope, checked for its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"error", "request_id"}
    assert body["request_id"] == answer.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    assert error["code"] == status and error["detail_text"] and isinstance(error["message"], str)
    if message is not None:
        assert error["message"] == message, error
    return error
