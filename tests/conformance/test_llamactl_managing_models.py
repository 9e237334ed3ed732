"""llamactl's "Managing Models" (shared/seeds/llamactl-managing-models.md), read in its order.

Each test's docstring is the statement that it holds Ostler to. The commands are the document's own.

Not here: what the tab and the dialogs of the web UI look like (the console's); that they can show what the
document says is tested by what the API tells (current file, bytes, status, sizes, paths, counts).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.core.settings import Settings
from ostler.core.settings_sources import load_settings
from tests.conformance.curl import Reply, curl
from tests.hub.repos import HubRepo
from tests.hub.server import HubServer, folder_files
from tests.serving import ServerProcess

pytestmark = pytest.mark.real

REPO = "bartowski/Llama-3.2-3B-Instruct-GGUF"
MODELS = "/api/v1/backends/llama-cpp/models"

DOWNLOAD = """\
curl -X POST http://localhost:8080/api/v1/backends/llama-cpp/models/download \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY" \\
  -d '{
    "repo": "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"
  }'
"""
LIST = """\
curl http://localhost:8080/api/v1/backends/llama-cpp/models \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY"
"""
DELETE = """\
curl -X DELETE "http://localhost:8080/api/v1/backends/llama-cpp/models?repo=bartowski/Llama-3.2-3B-Instruct-GGUF&tag=Q4_K_M" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY"
"""  # noqa: E501 - as the document has it
CREATE = """\
curl -X POST http://localhost:8080/api/v1/instances/my-llama-instance \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY" \\
  -d '{
    "backend_type": "llama_cpp",
    "backend_options": {
      "model": "~/.cache/llama.cpp/bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf"
    }
  }'
"""
CREATE_BY_REPO = """\
curl -X POST http://localhost:8080/api/v1/instances/my-llama-instance \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer YOUR_MANAGEMENT_KEY" \\
  -d '{
    "backend_type": "llama_cpp",
    "backend_options": {
      "hf_repo": "bartowski/Llama-3.2-3B-Instruct-GGUF",
      "hf_file": "model-Q4_K_M.gguf"
    }
  }'
"""
COMMANDS = [DOWNLOAD, LIST, DELETE, CREATE, CREATE_BY_REPO]


class House:
    """A server as a llamactl user has it, with a hub beside it; `home` is the user's home folder."""

    def __init__(self, hub: HubServer, home: Path, **environment: str) -> None:
        self.hub = hub
        self.home = home
        (home / "data").mkdir(parents=True)
        variables = {
            "HOME": str(home),
            "XDG_CACHE_HOME": "",
            "OSTLER_OFFLINE": "0",
            "OSTLER_HUB_CACHE_DIR": str(home / ".cache" / "huggingface" / "hub"),
            "OSTLER_DISK_RESERVE_BYTES": "0",
            "HF_ENDPOINT": hub.endpoint,
            **environment,
        }
        self.server = ServerProcess(home / "data", environment=variables).start()

    @property
    def cache(self) -> Path:
        """Where the document says that models are."""
        return self.home / ".cache" / "llama.cpp"

    def run(self, command: str, **replaced: str) -> Reply:
        """Run one of the document's commands."""
        return curl(command, self.server.url, **replaced)

    def download(self, repo: str) -> dict[str, Any]:
        """Download and wait for the end: the job."""
        answer = self.run(DOWNLOAD, **{f"{REPO}:Q4_K_M": repo})
        assert answer.status == 202, answer.text
        return self.end_of(answer.body["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.server.ask(f"{MODELS}/jobs/{job_id}")
        return found

    def shut(self) -> None:
        """End the server and what it runs."""
        self.server.end_everything()

    def end_of(self, job_id: str) -> dict[str, Any]:
        return self.job_when(job_id, lambda job: job["status"] not in ("queued", "downloading"))

    def job_when(self, job_id: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job once it is as wanted."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if wanted(job := self.job(job_id)):
                return job
            time.sleep(0.05)
        raise AssertionError(f"it stays so: {job}")

    def models(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run(LIST).body
        return found


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with HubServer() as hub:
        house = House(hub, tmp_path_factory.mktemp("llamactl") / "home")
        yield house
        house.shut()


@pytest.fixture
def house(standing: House) -> Iterator[House]:
    """The server, with nothing in its caches and no jobs; its hub is empty."""
    yield standing
    standing.hub.faults.clear()
    standing.hub.repos.clear()
    standing.hub.requests.clear()
    for job in standing.server.ask(f"{MODELS}/jobs")["jobs"]:
        standing.server.ask(f"/api/v1/models/jobs/{job['id']}", method="DELETE")
    for instance in standing.server.ask("/api/v1/instances"):
        standing.server.ask(f"/api/v1/instances/{instance['name']}/stop", method="POST")
        standing.server.ask(f"/api/v1/instances/{instance['name']}", method="DELETE")
    for folder in standing.home.glob(".cache/*"):
        shutil.rmtree(folder)


@pytest.fixture
def hub_server(house: House) -> HubServer:
    """The hub of `house`."""
    return house.hub


@pytest.fixture
def repo(hub_server: HubServer, demo_model: Path) -> HubRepo:
    """The document's example: a repo with two quantizations."""
    data = demo_model.read_bytes()
    return hub_server.add_repo(REPO, {"model-Q4_K_M.gguf": data, "model-Q8_0.gguf": data + bytes(32)})


def test_every_command_of_the_document_is_run_here(shared: Path) -> None:
    """(The commands below are the document's, whole and unchanged.)"""
    text = (shared / "seeds" / "llamactl-managing-models.md").read_text()
    said = re.findall(r"^curl .*?(?=^```)", text, re.MULTILINE | re.DOTALL)
    assert sorted(said) == sorted(COMMANDS)


# Overview


def test_it_downloads_gguf_models_from_repositories_and_caches_them_for_reuse(
    house: House, repo: HubRepo
) -> None:
    """Downloads GGUF models directly from HuggingFace repositories; caches models for reuse."""
    first = house.download(f"{REPO}:Q4_K_M")
    assert first["status"] == "completed"
    fetched = len(house.hub.requests_for("/cdn/*"))
    again = house.download(f"{REPO}:Q4_K_M")
    assert again["status"] == "completed" and again["id"] != first["id"]
    assert len(house.hub.requests_for("/cdn/*")) == fetched > 0


def test_only_llama_cpp_is_supported(house: House) -> None:
    """Only supports llama.cpp backend."""
    for other in ("vllm", "mlx"):
        assert house.server.status(f"/api/v1/backends/{other}/models") == 404


# Cache directory


def test_the_default_cache_directory(house: House, repo: HubRepo) -> None:
    """Linux: ~/.cache/llama.cpp/."""
    assert not house.cache.exists()
    assert house.download(f"{REPO}:Q4_K_M")["status"] == "completed"
    assert (house.cache / "bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf").is_file()


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": ""}, "~/.cache/llama.cpp"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/llama.cpp"),
        ("darwin", {}, "~/Library/Caches/llama.cpp"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/llama.cpp/cache"),
    ],
)
def test_the_default_on_each_system(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], folder: str
) -> None:
    """Linux, with XDG_CACHE_HOME, macOS and Windows."""
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().llama_cache_dir == Path(folder).expanduser()


def test_the_cache_directory_can_be_customized() -> None:
    """Environment variables LLAMACTL_LLAMACPP_CACHE_DIR and LLAMA_CACHE (which is the stronger one)."""
    both = {"LLAMACTL_LLAMACPP_CACHE_DIR": "/ours", "LLAMA_CACHE": "/llama"}
    for environment, folder in ((dict([pair]), pair[1]) for pair in both.items()):
        assert load_settings(environ=environment).values.llama_cache_dir == Path(folder)
    assert load_settings(environ=both).values.llama_cache_dir == Path("/llama")


def test_a_customized_directory_is_used(hub_server: HubServer, repo: HubRepo, tmp_path: Path) -> None:
    """Environment variable: LLAMA_CACHE (standard llama.cpp convention)."""
    house = House(hub_server, tmp_path / "home", LLAMA_CACHE=str(tmp_path / "own"))
    try:
        assert house.download(f"{REPO}:Q4_K_M")["status"] == "completed"
        assert (tmp_path / "own" / "bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf").is_file()
        assert not house.cache.exists()
    finally:
        house.shut()


# Downloading models


def test_the_download_is_answered_with_a_job(house: House, repo: HubRepo) -> None:
    """The response: job_id, repo and tag."""
    answer = house.run(DOWNLOAD)
    assert answer.status == 202
    body = answer.body
    assert body.keys() == {"job_id", "repo", "tag"}
    assert (body["repo"], body["tag"]) == (REPO, "Q4_K_M")
    assert re.fullmatch(r"[0-9a-f]{16}", body["job_id"])
    assert house.end_of(body["job_id"])["status"] == "completed"


def test_the_progress_of_a_download_is_shown(house: House, hub_server: HubServer, repo: HubRepo) -> None:
    """Downloaded bytes, current file, status (queued, downloading, completed, failed, cancelled)."""
    stall = hub_server.faults.stall("/cdn/*", after_bytes=500_000)
    job_id = house.run(DOWNLOAD).body["job_id"]
    job = house.job_when(job_id, lambda job: job["progress"]["bytes_downloaded"] >= 500_000)
    size = repo.blob("model-Q4_K_M.gguf").size
    assert job["status"] == "downloading" and job["progress"]["total_bytes"] == size
    assert job["progress"]["current_file"] == "model-Q4_K_M.gguf"
    assert house.server.ask(f"{MODELS}/jobs")["jobs"] == [job]
    stall.release()
    over = house.end_of(job_id)
    assert over["status"] == "completed" and over["progress"]["bytes_downloaded"] == size


def test_a_job_is_cancelled_and_one_fails(house: House, hub_server: HubServer, repo: HubRepo) -> None:
    """Status: cancelled; failed."""
    stall = hub_server.faults.stall("/cdn/*", after_bytes=1_000)
    job_id = house.run(DOWNLOAD).body["job_id"]
    house.job_when(job_id, lambda job: job["progress"]["bytes_downloaded"] > 0)
    house.server.ask(f"{MODELS}/jobs/{job_id}", method="DELETE")
    stall.release()
    assert house.end_of(job_id)["status"] == "cancelled"
    failed = house.download(f"{REPO}:Q2_K")
    assert failed["status"] == "failed" and REPO in failed["error"]
    assert house.models() == []


@pytest.mark.parametrize(
    ("asked", "tag"),
    [(f"{REPO}:Q4_K_M", "Q4_K_M"), (REPO, "latest")],
)
def test_the_model_format(house: House, repo: HubRepo, asked: str, tag: str) -> None:
    """org/model-name or org/model-name:tag; the tag defaults to latest."""
    answer = house.run(DOWNLOAD, **{f"{REPO}:Q4_K_M": asked})
    assert (answer.body["repo"], answer.body["tag"]) == (REPO, tag)
    assert house.end_of(answer.body["job_id"])["status"] == "completed"
    assert [(model["repo"], model["tag"]) for model in house.models()] == [(REPO, tag)]


# What gets downloaded


def test_what_gets_downloaded(house: House, hub_server: HubServer, shared: Path) -> None:
    """The manifest, the GGUF files with all parts, mmproj and preset.ini; with ETags."""
    parts = folder_files(shared / "demo-model" / "split")
    beside = {"mmproj-model-f16.gguf": b"a projector", "preset.ini": b"[*]\ntemp = 0.7\n"}
    hub_server.add_repo("org/vision", {**parts, **beside})
    assert house.download("org/vision")["status"] == "completed"
    flat = {path.name for path in house.cache.iterdir() if path.is_file()}
    weights = {f"org_vision_{name}" for name in (*parts, "mmproj-model-f16.gguf")}
    assert flat == {
        "manifest=org=vision=latest.json",
        "org_vision_preset.ini",
        *weights,
        *(f"{name}.etag" for name in weights),
    }
    manifest = json.loads((house.cache / "manifest=org=vision=latest.json").read_bytes())
    assert manifest["ggufFile"]["rfilename"] in parts and manifest["mmprojFile"]
    assert (house.cache / "org_vision_preset.ini").read_bytes() == beside["preset.ini"]
    (model,) = house.models()
    kinds = sorted(file["type"] for file in model["files"])
    assert kinds == ["gguf", "gguf", "gguf", "mmproj", "preset"] and model["file_count"] == 5


def test_files_are_validated_by_their_etags(house: House, repo: HubRepo, demo_model: Path) -> None:
    """Files are downloaded with ETags to support efficient caching and validation."""
    house.download(f"{REPO}:Q4_K_M")
    model = house.cache / "bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf"
    etag = Path(f"{model}.etag").read_text()
    assert etag == f'"{repo.blob("model-Q4_K_M.gguf").sha256}"'
    repo.commit({"model-Q4_K_M.gguf": demo_model.read_bytes() + bytes(64)})
    house.download(f"{REPO}:Q4_K_M")
    assert Path(f"{model}.etag").read_text() == f'"{repo.blob("model-Q4_K_M.gguf").sha256}"' != etag
    assert model.stat().st_size == repo.blob("model-Q4_K_M.gguf").size


# Private models


def test_private_models_need_the_token(hub_server: HubServer, demo_model: Path, tmp_path: Path) -> None:
    """To download private models, set HF_TOKEN; it authenticates requests to HuggingFace."""
    hub_server.add_repo("org/mine", {"m-Q4_K_M.gguf": demo_model}, private=True, token="hf_your_token_here")
    without = House(hub_server, tmp_path / "without")
    with_token = House(hub_server, tmp_path / "with", HF_TOKEN="hf_your_token_here")
    try:
        assert without.download("org/mine")["status"] == "failed"
        assert with_token.download("org/mine")["status"] == "completed"
        assert all(request.token is None for request in hub_server.requests_for(host="cdn"))
    finally:
        without.shut()
        with_token.shut()


# Listing cached models


def test_the_list_of_cached_models(house: House, repo: HubRepo) -> None:
    """The response: repo, tag, files of name, size and modified, total_size, file_count."""
    assert house.models() == []
    house.download(f"{REPO}:Q4_K_M")
    (model,) = house.models()
    path = house.cache / "bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf"
    size = path.stat().st_size
    (file,) = model["files"]
    assert (model["repo"], model["tag"]) == (REPO, "Q4_K_M")
    assert (file["name"], file["size"]) == (path.name, size)
    assert file["modified"] == int(path.stat().st_mtime)
    assert (model["total_size"], model["file_count"]) == (size, 1)


# Deleting cached models


def test_a_tag_is_deleted(house: House, repo: HubRepo) -> None:
    """Delete a cached model by its tag."""
    house.download(f"{REPO}:Q4_K_M")
    house.download(f"{REPO}:Q8_0")
    assert house.run(DELETE).status == 204
    assert [model["tag"] for model in house.models()] == ["Q8_0"]
    assert not (house.cache / "bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf").exists()
    assert house.run(DELETE).status == 404


def test_without_a_tag_all_versions_are_deleted(house: House, repo: HubRepo) -> None:
    """The tag parameter is optional. If omitted, all versions of the model will be deleted."""
    for tag in ("Q4_K_M", "Q8_0"):
        house.download(f"{REPO}:{tag}")
    assert house.run(DELETE, **{"&tag=Q4_K_M": ""}).status == 204
    assert house.models() == [] and list(house.cache.iterdir()) == []


# Using downloaded models


def test_the_path_of_a_cached_file(house: House, repo: HubRepo) -> None:
    """Cached as {org}_{model}_{filename}; listing models via the API includes file paths."""
    house.download(f"{REPO}:Q4_K_M")
    expected = house.home / ".cache/llama.cpp/bartowski_Llama-3.2-3B-Instruct-GGUF_model-Q4_K_M.gguf"
    (file,) = house.models()[0]["files"]
    assert file["path"] == str(expected) and os.access(expected, os.R_OK)


def answers(house: House) -> None:
    """The instance starts and chats."""
    started = house.server.ask("/api/v1/instances/my-llama-instance/start", method="POST")
    assert started["status"] == "running", started
    body = {"model": "my-llama-instance", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert house.server.ask("/v1/chat/completions", body)["choices"][0]["message"]["content"]


def test_an_instance_of_the_cached_file(house: House, repo: HubRepo) -> None:
    """In the model field, the full path to the cached file: with ~ as the document writes it."""
    house.download(f"{REPO}:Q4_K_M")
    made = house.run(CREATE)
    assert made.status == 201 and made.body["status"] == "stopped", made.text
    (file,) = house.models()[0]["files"]
    answers(house)
    refused = house.run(DELETE)
    assert refused.status == 409 and "my-llama-instance" in refused.body["details"]
    assert Path(file["path"]).is_file()


def test_the_absolute_path_works_too(house: House, repo: HubRepo) -> None:
    """Or use the absolute path."""
    house.download(f"{REPO}:Q4_K_M")
    assert house.run(CREATE, **{"~/.cache": f"{house.home}/.cache"}).status == 201
    answers(house)


def test_an_instance_by_repo_and_file(house: House, repo: HubRepo) -> None:
    """Instead of using the model downloader, by hf_repo and hf_file."""
    made = house.run(CREATE_BY_REPO)
    assert made.status == 201, made.text
    answers(house)


def test_what_was_downloaded_is_served_by_its_name_at_every_door(house: House, repo: HubRepo) -> None:
    """(A model pulled by one dialect is seen and served by all others, once and by one name.)"""
    house.download(f"{REPO}:Q4_K_M")
    names = [model["id"] for model in house.server.ask("/v1/models")["data"]]
    assert [name for name in names if REPO in name] == [f"{REPO}:Q4_K_M"], names
    body = {
        "model": f"{REPO}:Q4_K_M",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 4,
    }
    assert house.server.ask("/v1/chat/completions", body)["choices"][0]["message"]["content"]
