"""Pulling by a predefined alias: the file comes, and the model is made, once and also after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ostler.api.services import Services
from ostler.app import build
from ostler.core.principals import LOCAL_ADMIN, Principal, Role
from ostler.core.settings_sources import load_settings
from ostler.core.states import JobState
from ostler.models.records import NewModel
from ostler.models.service import NameTaken
from tests.hub.server import HubServer

FILE = "Phi-3-mini-4k-instruct-fp16.gguf"
REPO = "microsoft/Phi-3-mini-4k-instruct-gguf"


@asynccontextmanager
async def house(tmp_path: Path, hub: HubServer) -> AsyncIterator[Services]:
    flags = {"data_dir": tmp_path, "hub_cache_dir": tmp_path / "hub", "hf_endpoint": hub.endpoint}
    ostler = build(load_settings(flags={**flags, "disk_reserve_bytes": 0}, environ={}))
    async with ostler.running():
        yield ostler.services


@pytest.fixture
def hub(hub_server: HubServer, demo_model: Path) -> HubServer:
    hub_server.add_repo(REPO, {FILE: demo_model})
    return hub_server


async def test_the_model_is_made_with_its_parameters_when_the_file_is_here(
    tmp_path: Path, hub: HubServer
) -> None:
    async with house(tmp_path, hub) as rooms:
        job = await rooms.predefined_pulls.pull("phi3:mini", Principal("ada", Role.POWER_USER))
        assert rooms.models.find("phi3:mini") is None
        ended = await rooms.jobs.wait(job.id, 30)
        assert (ended.state, ended.result and ended.result["model"]) == (JobState.SUCCEEDED, "phi3:mini")
        model = rooms.models.get("phi3:mini")
        assert (model.source.repo, model.source.file) == (REPO, FILE)
        assert model.source.revision == hub.repos[REPO].head
        assert model.options == {"parallel_slots": 4}
        assert model.request_defaults == {"stop": ["<|end|>", "<|user|>", "<|assistant|>"]}
        again = await rooms.predefined_pulls.pull("phi3:mini", LOCAL_ADMIN)
        assert (await rooms.jobs.wait(again.id, 30)).state is JobState.SUCCEEDED
        assert len(rooms.models.all()) == 1


async def test_a_pull_goes_on_after_a_restart_and_makes_the_model(tmp_path: Path, hub: HubServer) -> None:
    stalled = hub.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    async with house(tmp_path, hub) as rooms:
        job = await rooms.predefined_pulls.pull("phi3:mini", LOCAL_ADMIN)
        assert await asyncio.to_thread(stalled.reached.wait, 10)
    hub.faults.clear()
    async with house(tmp_path, hub) as rooms:
        assert (await rooms.jobs.wait(job.id, 30)).state is JobState.SUCCEEDED
        assert rooms.models.get("phi3:mini").source.repo == REPO


async def test_it_waits_for_another_download_of_the_same_file_and_takes_what_that_fetched(
    tmp_path: Path, hub: HubServer
) -> None:
    stalled = hub.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    async with house(tmp_path, hub) as rooms:
        plain = await rooms.downloads.pull(f"{REPO}:{FILE}", principal=LOCAL_ADMIN)
        assert await asyncio.to_thread(stalled.reached.wait, 10)
        job = await rooms.predefined_pulls.pull("phi3:mini", LOCAL_ADMIN)
        assert job.id != plain.id
        assert (await rooms.predefined_pulls.pull("phi3:mini", LOCAL_ADMIN)).id == job.id
        stalled.release()
        for one in (plain, job):
            assert (await rooms.jobs.wait(one.id, 30)).state is JobState.SUCCEEDED
        assert rooms.models.find("phi3:mini") is not None
        assert len(list((tmp_path / "hub").glob("models--*/snapshots/*/*.gguf"))) == 1


async def test_a_name_that_another_model_has_is_refused_at_once(
    tmp_path: Path, hub: HubServer, demo_model: Path
) -> None:
    async with house(tmp_path, hub) as rooms:
        await rooms.models.create(NewModel({"path": str(demo_model)}, name="phi3:mini"), LOCAL_ADMIN)
        with pytest.raises(NameTaken):
            await rooms.predefined_pulls.pull("phi3:mini", LOCAL_ADMIN)
        assert (await rooms.jobs.list()).total == 0
