"""A model that is pulled through one system's API is seen and served through every other one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from tests.hub.server import HubServer
from tests.serving import ServerProcess

pytestmark = pytest.mark.real

HI: Any = [{"role": "user", "content": "hi"}]
PATIENCE_S = 60.0
OVER = {"completed", "succeeded", "failed", "cancelled"}


def repo_of(door: str) -> str:
    return f"org/from-{door}-GGUF"


def name_of(door: str) -> str:
    return f"{repo_of(door)}:Q8_0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[ServerProcess]:
    """A server with a hub behind it that has one repo for each door."""
    folder = tmp_path_factory.mktemp("doors")
    with HubServer() as hub:
        for number, door in enumerate(PULLS):  # what stands behind the tensors makes other bytes of it
            contents = demo_model.read_bytes() + bytes([number])
            hub.add_repo(repo_of(door), {"tiny-Q8_0.gguf": contents})
        surroundings = {
            "HOME": str(folder),
            "OSTLER_OFFLINE": "0",
            "OSTLER_HF_ENDPOINT": hub.endpoint,
            "OSTLER_DISK_RESERVE_BYTES": "0",
        }
        server = ServerProcess(folder / "data", environment=surroundings).start()
        yield server
        server.end_everything()


def until_over(server: ServerProcess, path: str) -> None:
    """Wait for a job, as a client that polls does."""
    deadline = time.monotonic() + PATIENCE_S
    while (seen := server.ask(path))["status"] not in OVER:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    assert seen["status"] in ("completed", "succeeded"), seen


def by_ostler(server: ServerProcess) -> None:
    job = server.ask("/ostler/v1/downloads", {"spec": name_of("ostler")})
    deadline = time.monotonic() + PATIENCE_S
    while (seen := server.ask(f"/ostler/v1/jobs/{job['id']}"))["state"] not in OVER:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


def by_llamactl(server: ServerProcess) -> None:
    base = "/api/v1/backends/llama-cpp/models"
    job = server.ask(f"{base}/download", {"repo": name_of("llamactl")})
    until_over(server, f"{base}/jobs/{job['job_id']}")


def by_bodhi(server: ServerProcess) -> None:
    body = {"repo": repo_of("bodhi"), "filename": "tiny-Q8_0.gguf"}
    job = server.ask("/bodhi/v1/modelfiles/pull", body)
    until_over(server, f"/bodhi/v1/modelfiles/pull/{job['id']}")


def by_ollama(server: ServerProcess) -> None:
    with ollama.Client(host=server.url) as client:
        assert client.pull(f"hf.co/{name_of('ollama')}").status == "success"


PULLS: dict[str, Callable[[ServerProcess], None]] = {
    "ostler": by_ostler,
    "llamactl": by_llamactl,
    "bodhi": by_bodhi,
    "ollama": by_ollama,
}


@pytest.fixture(scope="module", params=list(PULLS))
def pulled(request: pytest.FixtureRequest, server: ServerProcess) -> str:
    """The name of a model that one of the doors pulled."""
    PULLS[request.param](server)
    return name_of(request.param)


def test_every_door_lists_it_once(server: ServerProcess, pulled: str) -> None:
    repo = pulled.partition(":")[0]
    assert [row["id"] for row in server.ask("/v1/models")["data"]].count(pulled) == 1
    assert [row["name"] for row in server.ask("/ostler/v1/models?limit=1000")["items"]].count(pulled) == 1
    assert [row["name"] for row in server.ask("/api/tags")["models"]].count(pulled) == 1
    aliases = server.ask("/bodhi/v1/models?page_size=100")["data"]
    assert [row["alias"] for row in aliases].count(pulled) == 1
    files = server.ask("/bodhi/v1/modelfiles?page_size=100")["data"]
    assert [row["repo"] for row in files].count(repo) == 1
    cached = server.ask("/api/v1/models")
    assert [row["repo"] for row in cached].count(repo) == 1, json.dumps(cached)


def test_every_door_serves_it(server: ServerProcess, pulled: str) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=pulled, messages=HI)
        assert answer.model == pulled and answer.choices[0].message.content
    with ollama.Client(host=server.url) as client:
        assert client.chat(f"hf.co/{pulled}", HI).message.content
    body = {"messages": HI}
    assert server.ask(f"/llama-cpp/{pulled.replace('/', '%2F')}/v1/chat/completions", body)["choices"]


def test_once_used_it_is_a_model_of_every_door(server: ServerProcess, pulled: str) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        client.chat.completions.create(model=pulled, messages=HI)
    named = {row["name"]: row for row in server.ask("/api/v1/instances")}
    assert named[pulled]["status"] == "running"
    assert pulled in {row["served_model_name"] for row in server.ask("/admin/models")}
    assert pulled in {row["name"] for row in server.ask("/api/ps")["models"]}
