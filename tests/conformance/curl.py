"""A curl command of a document, run as it stands: the same request over HTTP, to another address."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    text: str
    headers: httpx2.Headers

    @property
    def body(self) -> Any:
        """The JSON."""
        return json.loads(self.text)


def curl(command: str, url: str, **replaced: str) -> Reply:
    """Run a curl command of a document against the server at `url`.

    `replaced` are words of the command that the reader is meant to put their own in for. It knows -X, -H
    and -d, as curl does: a body makes it a POST and, without a header that says otherwise, a form.
    """
    for word, own in replaced.items():
        command = command.replace(word, own)
    words = shlex.split(command.replace("\\\n", " "))
    assert words.pop(0) == "curl"
    method, target, headers, body = "", "", {}, None
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                body = words.pop(0)
            case other:
                assert other.startswith("http"), other
                target = other
    if body is not None:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    parts = urlsplit(target)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    answer = httpx2.request(
        method or ("GET" if body is None else "POST"), url + path, headers=headers, content=body, timeout=60
    )
    return Reply(answer.status_code, answer.text, answer.headers)
