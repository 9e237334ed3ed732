"""An online model: its files are fetched by the first start, which says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.api.conftest import MakeApi
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


async def test_the_first_start_fetches_its_files_and_says_so(make_api: MakeApi, repo: HubServer) -> None:
    api = await make_api(offline=False, hf_endpoint=repo.endpoint, cortex_runtime="process")
    model = f"{MODELS}/{(await api.post(MODELS, BODY)).json()['id']}"
    error = envelope(await api.post(f"{model}/start"), 409)
    assert "are being fetched" in error["detail_text"] and error["hint"]
    assert (await api.get(model)).json()["state"] == "stopped"  # what is true: nothing runs yet
    job = await api.services.jobs.wait(error["facts"]["job"], 30)
    assert job.state.value == "succeeded"
    told = (await api.post(f"{model}/dry-run")).json()
    assert "Files are not here" not in [warning["title"] for warning in told["warnings"]]


async def test_offline_nothing_is_fetched(make_api: MakeApi) -> None:
    api = await make_api(cortex_runtime="process")
    model = f"{MODELS}/{(await api.post(MODELS, BODY)).json()['id']}"
    error = envelope(await api.post(f"{model}/start"), 503)
    assert "ffline" in f"{error['detail_text']} {error['hint']}"


async def test_a_repo_of_ggufs_is_never_given_to_vllm(make_api: MakeApi, demo_model: Path) -> None:
    api = await make_api(cortex_runtime="process")
    snapshot = api.data_dir / "hub" / "models--org--tensors" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(demo_model, snapshot / "m-Q8_0.gguf")
    answer = await api.post(MODELS, BODY)
    assert answer.status_code in (400, 422) and "gguf" in answer.text
