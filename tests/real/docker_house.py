"""A server whose models run in containers of a real Docker Engine, and what a person sees of it."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real.docker_engine import LLAMA_IMAGE, DockerEngine
from tests.serving import ServerProcess
from tests.unchanged import Print, fingerprints

API = "/ostler/v1"
PATIENCE_S = 60.0
QUICK = {
    "OSTLER_PROBE_INTERVAL_S": "0.3",
    "OSTLER_RESTART_BACKOFF_S": "0.1",
    "OSTLER_STOP_GRACE_S": "5",
    "OSTLER_PROBE_TIMEOUT_S": "2",
}


class DockerHouse:
    """One Ostler on `engine`, with copies of the demo model in its models folder."""

    def __init__(self, engine: DockerEngine, folder: Path, demo_model: Path, **environment: str) -> None:
        self.engine = engine
        self.models_dir = folder / "models"
        self.models_dir.mkdir(parents=True)
        shutil.copy(demo_model, self.models_dir / "demo.gguf")
        settings = {
            "OSTLER_MODELS_DIR": str(self.models_dir),
            "OSTLER_DOCKER_HOST": engine.host,
            "OSTLER_LLAMACPP_IMAGE": LLAMA_IMAGE,
        }
        self.server = ServerProcess(folder / "data", environment={**QUICK, **settings, **environment})
        self.server.start()

    def add(self, name: str = "demo", **recipe: Any) -> dict[str, Any]:
        """A model of the demo file, in a container."""
        body = {"name": name, "source": {"path": "demo.gguf"}, "runtime": "docker", **recipe}
        body.setdefault("options", {"context_length": 512, "parallel_slots": 1})
        made: dict[str, Any] = self.server.ask(f"{API}/models", body)
        return made

    def start(self, name: str = "demo", **order: Any) -> dict[str, Any]:
        """Start it and wait; a refusal is given as its problem document."""
        return self._post(f"{API}/models/{name}/start", order)

    def stop(self, name: str = "demo") -> dict[str, Any]:
        return self._post(f"{API}/models/{name}/stop", {})

    def dry_run(self, name: str = "demo") -> dict[str, Any]:
        return self._post(f"{API}/models/{name}/dry-run", {})

    def instance(self, name: str = "demo") -> dict[str, Any]:
        found: dict[str, Any] = self.server.ask(f"{API}/models/{name}/instance")
        return found

    def states(self) -> list[str]:
        """The kinds of events about instances, oldest first."""
        items = self.server.ask(f"{API}/history?limit=200")["items"]
        kinds = [item["kind"] for item in sorted(items, key=lambda item: item["id"])]
        return [kind.removeprefix("instance.") for kind in kinds if kind.startswith("instance.")]

    def log(self, name: str = "demo", query: str = "") -> list[str]:
        with urllib.request.urlopen(
            f"{self.server.url}{API}/models/{name}/logs{query}", timeout=30
        ) as answer:
            return list(answer.read().decode().splitlines())

    def chat(self, name: str = "demo", *, stream: bool = False) -> str:
        """What the model says to "Hi"; of a stream, the server-sent events as they came."""
        body = {
            "model": name,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": stream,
        }
        request = urllib.request.Request(
            f"{self.server.url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text: str = answer.read().decode()
        return text if stream else str(json.loads(text)["choices"][0]["message"]["content"])

    def until(self, is_so: Callable[[dict[str, Any]], bool], name: str = "demo") -> dict[str, Any]:
        """The instance once this is so of it; polled, as the user interfaces do."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = self.instance(name)
            if is_so(found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"never came true; now: {found}\n{self.server.log.read_text()[-3000:]}")

    def until_state(self, state: str, name: str = "demo") -> dict[str, Any]:
        return self.until(lambda found: found["state"] == state, name)

    def fingerprints(self) -> dict[str, Print]:
        """What everything in the models folder is."""
        return fingerprints(self.models_dir)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self.server.ask(path, body)
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        return answer
