"""What answers in Ollama's API look like."""

from __future__ import annotations

import httpx2


def failure(answer: httpx2.Response, status: int, *words: str) -> str:
    """What a failure says, checked for its shape; nothing for HEAD, whose answers are empty."""
    assert answer.status_code == status, answer.text
    if answer.request.method == "HEAD":
        return ""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"} and body["error"]
    assert all(word in body["error"] for word in words), body
    return str(body["error"])
