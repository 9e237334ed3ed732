"""An online model: a start fetches its files, and goes on by itself."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.api.conftest import MakeApi, problem
from tests.api.dialects.cortex.shapes import envelope
from tests.hub.server import HubServer
from tests.library.gguf_files import write_safetensors

MODELS = "//admin/models"
BODY = {"mode": "online", "repo_id": "org/tensors", "served_model_name": "far"}


@pytest.fixture
def repo(hub_server: HubServer, tmp_path: Path) -> HubServer:
    """A hub with a repo of safetensors."""
    file = write_safetensors(tmp_path / "model.safetensors", {"a": ("BF16", (8, 8))})
    config = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    hub_server.add_repo("org/tensors", {"model.safetensors": tmp_path / file.name, "config.json": config})
    return hub_server


async def test_a_start_fetches_its_files_and_goes_on_by_itself(
    make_api: MakeApi, hub_server: HubServer, demo_model: Path
) -> None:
    hub_server.add_repo("org/demo-GGUF", {"demo-Q8_0.gguf": demo_model})
    api = await make_api(offline=False, hf_endpoint=hub_server.endpoint, probe_interval_s=0.2)
    made = await api.post(
        "/models", {"source": {"repo": "org/demo-GGUF", "tag": "Q8_0"}, "name": "far", "engine": "llamacpp"}
    )
    assert made.status_code == 201, made.text
    model = f"{MODELS}/{made.json()['id']}"
    dry = (await api.post(f"{model}/dry-run")).json()
    assert dry["valid"], dry
    assert "Its files are fetched first" in [w["title"] for w in dry["warnings"]]
    answer = (await api.post(f"{model}/start")).json()
    assert answer["status"] in ("stopped", "starting")
    assert "Its files are fetched first" in [warning["title"] for warning in answer["warnings"]]
    async with asyncio.timeout(60):
        while (await api.get(model)).json()["state"] != "running":
            await asyncio.sleep(0.05)


async def test_a_models_own_token_fetches_its_files_and_goes_nowhere_else(
    make_api: MakeApi, hub_server: HubServer, demo_model: Path
) -> None:
    hub_server.add_repo("org/closed", {"demo-Q8_0.gguf": demo_model}, private=True, token="hf_own")
    api = await make_api(offline=False, hf_endpoint=hub_server.endpoint, probe_interval_s=0.2)
    recipe = {"source": {"repo": "org/closed", "tag": "Q8_0"}, "name": "far", "engine": "llamacpp"}
    made = await api.post("/models", {**recipe, "env": {"HF_TOKEN": "hf_own", "A": "b"}})
    assert made.status_code == 201, made.text
    model = f"{MODELS}/{made.json()['id']}"
    dry = await api.post(f"{model}/dry-run")
    assert dry.json()["valid"], dry.text
    started = await api.post(f"{model}/start")
    assert started.status_code == 200, started.text
    async with asyncio.timeout(60):
        while (await api.get(model)).json()["state"] != "running":
            await asyncio.sleep(0.05)
    assert {request.token for request in hub_server.requests_for(host="hub")} == {"hf_own"}
    (engine,) = (await api.get("/instances")).json()["items"]
    assert b"hf_own" not in Path(f"/proc/{engine['pid']}/environ").read_bytes()
    told = [(await api.get(path)).text for path in ("/jobs", "/history", "/models", model)]
    assert not any("hf_own" in text for text in (*told, dry.text, started.text))
    planned = await api.post("/downloads/plan", {"model": "far"})
    assert planned.json()["need_bytes"] == 0, planned.text
    problem(await api.post("/downloads/plan", {"model": "far", "spec": "org/closed"}), 422, "invalid_field")


async def test_what_else_is_wrong_refuses_the_start_and_fetches_nothing(
    make_api: MakeApi, repo: HubServer
) -> None:
    api = await make_api(offline=False, hf_endpoint=repo.endpoint, docker_host="unix:///nowhere.sock")
    model = f"{MODELS}/{(await api.post(MODELS, BODY)).json()['id']}"
    error = envelope(await api.post(f"{model}/start"), 503)
    assert "Docker daemon" in error["detail_text"] and error["hint"]
    assert (await api.get(model)).json()["state"] == "stopped"
    assert (await api.get("/jobs")).json()["total"] == 0


async def test_offline_nothing_is_fetched(make_api: MakeApi) -> None:
    api = await make_api(cortex_runtime="process")
    model = f"{MODELS}/{(await api.post(MODELS, BODY)).json()['id']}"
    error = envelope(await api.post(f"{model}/start"), 409)
    assert "ffline" in f"{error['detail_text']} {error['hint']}"


async def test_a_repo_of_ggufs_is_never_given_to_vllm(make_api: MakeApi, demo_model: Path) -> None:
    api = await make_api(cortex_runtime="process")
    snapshot = api.data_dir / "hub" / "models--org--tensors" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(demo_model, snapshot / "m-Q8_0.gguf")
    answer = await api.post(MODELS, BODY)
    assert answer.status_code in (400, 422) and "gguf" in answer.text
