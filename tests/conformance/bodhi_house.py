"""A server as a user of BodhiApp has it: on an address that needs keys, with the test hub behind it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ostler.models.predefined import SHIPPED
from tests.hub.server import HubServer
from tests.real.docker_house import QUICK
from tests.serving import ServerProcess

REPO = "microsoft/Phi-3-mini-4k-instruct-gguf"
Q4, FP16 = "Phi-3-mini-4k-instruct-q4.gguf", "Phi-3-mini-4k-instruct-fp16.gguf"
PASSWORD = "a long password"
OVER = ("completed", "failed", "cancelled")
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Reply:
    """What came back; `body` is the JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer, checked for its shape."""
        assert self.body.keys() == {"error"}, self.body
        error: dict[str, Any] = self.body["error"]
        assert error["message"] and error["type"] and error["code"], error
        return error


class BodhiHouse:
    """`tokens` by role; `user` and `power` ask with the key of that role, `ask` as one likes."""

    def __init__(self, folder: Path, demo_model: Path) -> None:
        self.hub = HubServer().start()
        demo = demo_model.read_bytes()
        self.commit = self.hub.add_repo(REPO, {Q4: demo + b"q4", FP16: demo + b"fp16"}).head
        for number, alias in enumerate(SHIPPED):  # what stands behind the tensors makes other bytes of it
            if alias.repo != REPO:
                self.hub.add_repo(alias.repo, {alias.file: demo + bytes([number])})
        environment = {
            "OSTLER_HOST": "0.0.0.0",
            "OSTLER_OFFLINE": "0",
            "OSTLER_HF_ENDPOINT": self.hub.endpoint,
            "OSTLER_DISK_RESERVE_BYTES": "0",
            "OSTLER_DOWNLOAD_JOBS": "1",
            "OSTLER_DOWNLOAD_RETRIES": "0",
            "OSTLER_HUB_CACHE_DIR": "",
            "HF_HOME": str(folder / "hf"),
            **QUICK,
        }
        self.cache = folder / "hf" / "hub"
        self.server = ServerProcess(folder / "data", environment=environment)
        self.tokens: dict[str, str] = {}
        self.start()

    def start(self) -> None:
        """Start the server, a first time or again."""
        self.server.start()
        if not self.tokens:
            assert self.server.process is not None and self.server.process.stdout is not None
            lines = iter(self.server.process.stdout.readline, "")
            self.tokens["admin"] = next(line.strip() for line in lines if line.startswith("ostler-"))
            for role in ("user", "power_user", "manager"):
                made = self.admin("POST", "/ostler/v1/keys", {"name": role, "role": role})
                self.tokens[role] = made.body["key"]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request; an error's answer is an answer too."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data, headers, method=method)
        if data is not None and "Content-type" not in request.headers:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read()
                return Reply(answer.status, json.loads(text) if text else None, dict(answer.headers))
        except urllib.error.HTTPError as error:
            return Reply(error.code, json.loads(error.read()), dict(error.headers))

    def as_role(self, role: str, method: str, path: str, body: Any = None, **query: Any) -> Reply:
        """With the key of a role."""
        path += f"?{urlencode(query)}" if query else ""
        return self.ask(method, path, body, Authorization=f"Bearer {self.tokens[role]}")

    def user(self, method: str, path: str, body: Any = None, **query: Any) -> Reply:
        return self.as_role("user", method, path, body, **query)

    def power(self, method: str, path: str, body: Any = None, **query: Any) -> Reply:
        return self.as_role("power_user", method, path, body, **query)

    def admin(self, method: str, path: str, body: Any = None, **query: Any) -> Reply:
        return self.as_role("admin", method, path, body, **query)

    def good(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of an answer to a power user that must be good."""
        reply = self.power(method, path, body, **query)
        assert reply.status < 300, f"{method} {path}: {reply.status} {reply.body}"
        return reply.body

    def create(self, alias: str, **more: Any) -> dict[str, Any]:
        """An alias of the small file, as the document makes one."""
        body = {"alias": alias, "repo": REPO, "filename": Q4, **more}
        made: dict[str, Any] = self.good("POST", "/bodhi/v1/models", body)
        return made

    def pull(self, repo: str = REPO, filename: str = Q4) -> dict[str, Any]:
        """Pull a file and wait for the end."""
        body = {"repo": repo, "filename": filename}
        return self.ended(self.good("POST", "/bodhi/v1/modelfiles/pull", body)["id"])

    def ended(self, id: str) -> dict[str, Any]:
        """A download once it is over, as a client that polls sees it."""
        return self.download_until(id, OVER)

    def download_until(self, id: str, statuses: tuple[str, ...]) -> dict[str, Any]:
        """A download once it has one of these statuses."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen: dict[str, Any] = self.good("GET", f"/bodhi/v1/modelfiles/pull/{id}")
            if seen["status"] in statuses:
                return seen
            time.sleep(0.05)
        raise AssertionError(f"the download is still {seen}")

    def chat(self, model: str, **more: Any) -> Reply:
        """A chat with the key of a user."""
        body = {"model": model, "messages": [{"role": "user", "content": "Say something long."}], **more}
        return self.user("POST", "/v1/chat/completions", body)

    def command(self) -> list[str]:
        """The command line of the one engine that runs."""
        (engine,) = self.server.engines()
        return engine.cmdline()

    def remove_file(self, repo: str = REPO, filename: str = Q4) -> Reply:
        """What a person does who cleans up."""
        query = {"repo": repo, "filename": filename}
        return self.as_role("manager", "DELETE", "/bodhi/v1/modelfiles", **query)

    def clear(self) -> None:
        """Stop and delete every model, forget every download, and have the small file here."""
        self.hub.faults.clear()
        for model in self.admin("GET", "/ostler/v1/models", limit=1000).body["items"]:
            name = quote(model["name"])
            self.admin("POST", f"/ostler/v1/models/{name}/stop")
            self.admin("DELETE", f"/ostler/v1/models/{name}")
        self.forget_downloads()
        files = self.good("GET", "/bodhi/v1/modelfiles", page_size=100)["data"]
        for file in files:
            if file["filename"] != Q4:
                self.remove_file(file["repo"], file["filename"])
        if not any(file["filename"] == Q4 for file in files):
            self.pull()
            self.forget_downloads()

    def forget_downloads(self) -> None:
        """End and forget every download."""
        for job in self.admin("GET", "/ostler/v1/jobs", limit=1000).body["items"]:
            self.admin("POST", f"/ostler/v1/jobs/{job['id']}/cancel")
            self.admin("DELETE", f"/ostler/v1/jobs/{job['id']}")

    def end(self) -> None:
        self.server.end_everything()
        self.hub.stop()
