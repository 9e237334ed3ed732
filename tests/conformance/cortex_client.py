"""A client of Cortex: it knows Cortex's paths and nothing of Ostler's own API."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlencode

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is the JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def word(self) -> str:
        """The word that says what went wrong."""
        return str(self.body["error"]["message"])


class CortexClient:
    """Asks the server at `url`, with an API key or with a session's cookie where one is given."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url = url
        self.headers = headers

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """One request; an error's answer is an answer too."""
        text = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(text, data, self.headers, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return self._answer(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            return self._answer(error.code, error.read(), error.headers)

    def good(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of an answer that must be good."""
        answer = self(method, path, body, **query)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body}"
        return answer.body

    def get(self, path: str, **query: Any) -> Any:
        return self.good("GET", path, **query)

    def create(self, **fields: Any) -> int:
        """Create a model; its id."""
        number: int = self.good("POST", "/admin/models", fields)["id"]
        return number

    def do(self, number: int, verb: str, **query: Any) -> Answer:
        """One of the verbs of a model: start, stop, apply, archive, test, dry-run."""
        return self("POST", f"/admin/models/{number}/{verb}", **query)

    def change(self, number: int, **fields: Any) -> Answer:
        return self("PATCH", f"/admin/models/{number}", fields)

    def delete(self, number: int) -> Answer:
        return self("DELETE", f"/admin/models/{number}")

    def models(self) -> dict[int, dict[str, Any]]:
        """The page of models: every model by its id."""
        return {model["id"]: model for model in self.get("/admin/models")}

    def state(self, number: int) -> str:
        """What the page of models says of one."""
        return str(self.models()[number]["state"])

    def until(self, number: int, is_so: Callable[[str], bool], patience_s: float = PATIENCE_S) -> str:
        """The state once this is so of it; the page is asked again and again, as Cortex's own does."""
        deadline = time.monotonic() + patience_s
        while not is_so(state := self.state(number)):
            assert time.monotonic() < deadline, self.log(number)
            time.sleep(0.05)
        return state

    def until_state(self, number: int, *states: str, patience_s: float = PATIENCE_S) -> str:
        return self.until(number, lambda state: state in states, patience_s)

    def run(self, number: int, patience_s: float = PATIENCE_S) -> None:
        """Start a model and wait until it runs."""
        answer = self.do(number, "start")
        assert answer.status == 200, answer.body
        state = self.until_state(number, "running", "failed", patience_s=patience_s)
        assert state == "running", self.log(number)

    def stop(self, number: int) -> None:
        assert self.do(number, "stop").body == {"status": "stopped"}

    def dry_run(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.good("POST", f"/admin/models/{number}/dry-run")
        return found

    def log(self, number: int) -> str:
        return str(self.get(f"/admin/models/{number}/logs"))

    def diagnosed(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/admin/models/{number}/logs", diagnose="true")
        return found

    def registry(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/admin/models/registry")
        return found

    def chat(self, name: str, **more: Any) -> Answer:
        """Ask a model by its served name."""
        body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, **more}
        return self("POST", "/v1/chat/completions", body)

    def streamed(self, path: str, body: Mapping[str, Any]) -> list[str]:
        """The data of the server-sent events of an answer."""
        data = json.dumps({**body, "stream": True}).encode()
        request = urllib.request.Request(self.url + path, data, self.headers)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as answer:
            lines = answer.read().decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    @staticmethod
    def _answer(status: int, data: bytes, headers: Message) -> Answer:
        is_json = (headers.get("content-type") or "").startswith("application/json")
        return Answer(status, json.loads(data) if is_json and data else data.decode(), dict(headers))
