"""What answers in llamactl's API look like."""

from __future__ import annotations

from typing import Any

import httpx2


def failure(answer: httpx2.Response, status: int, word: str | None = None) -> dict[str, Any]:
    """The body of a failure, checked for its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body["details"] and body.keys() <= {"error", "details", "hint"}
    if word is not None:
        assert body["error"] == word, body
    return body


def not_let_in(answer: httpx2.Response, message: str | None = None) -> dict[str, Any]:
    """The error of an answer to one who does not come in, checked for its shape."""
    assert answer.status_code == 401, answer.text
    assert '"type": "authentication_error"' in answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type"}
    if message is not None:
        assert error["message"] == message
    return error
