"""Downloads end when they are told to, and go on after a server that did not end well."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ostler.core.database import Database
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.settings import Settings
from ostler.core.states import JobState
from tests.downloads.conftest import Bed, MakeBed
from tests.hub.repos import HubRepo
from tests.hub.server import HubServer

CHECKOUT = Path(__file__).parents[2]
DATA = os.urandom(1_500_000)
SPEC = "org/tiny-GGUF:Q8_0"
FILE = "tiny-Q8_0.gguf"
STAGING = ".ostler-staging"


@pytest.fixture
def repo(hub_server: HubServer) -> HubRepo:
    return hub_server.add_repo("org/tiny-GGUF", {FILE: DATA})


def workers(of: psutil.Process) -> list[psutil.Process]:
    return [child for child in of.children() if "ostler.downloads.worker" in child.cmdline()]


async def test_cancelling_ends_the_process_and_clears_what_was_staged(
    bed: Bed, hub_server: HubServer, repo: HubRepo
) -> None:
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=100_000)
    job = await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    assert await asyncio.to_thread(stalled.reached.wait, 10)
    (worker,) = workers(psutil.Process())
    cancelled = await bed.jobs.cancel(job.id, LOCAL_ADMIN)
    assert cancelled.state is JobState.CANCELLED
    assert not worker.is_running()
    assert not (bed.cache / STAGING).exists() and bed.visible() == []


async def test_a_server_that_stops_keeps_what_came_and_goes_on_from_there(
    bed: Bed, make_bed: MakeBed, hub_server: HubServer, repo: HubRepo
) -> None:
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=100_000)
    job = await bed.downloads.pull(SPEC, principal=LOCAL_ADMIN)
    assert await asyncio.to_thread(stalled.reached.wait, 10)
    async with asyncio.timeout(20):
        while (await bed.jobs.get(job.id)).progress.get("bytes_done", 0) < 100_000:
            await asyncio.sleep(0.02)
    await bed.jobs.stop()
    assert not workers(psutil.Process())
    next_server = await make_bed()
    over = await next_server.jobs.wait(job.id, 30)
    assert (over.state, over.attempts) == (JobState.SUCCEEDED, 2)
    assert over.result is not None and over.result["fetched_bytes"] == len(DATA) - 100_000


async def test_a_download_goes_on_after_its_server_was_killed(
    make_bed: MakeBed, hub_server: HubServer, repo: HubRepo, database: Database, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        hub_cache_dir=tmp_path / "hub",
        hf_endpoint=hub_server.endpoint,
        disk_reserve_bytes=0,
        download_timeout_s=60,  # the process must not end by itself, waiting for the hub
    )
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=100_000)
    command = [sys.executable, "-m", "tests.downloads.server_process"]
    server = subprocess.Popen(
        [*command, database.url, settings.model_dump_json(), SPEC],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    try:
        assert server.stdout is not None
        job_id = (await asyncio.to_thread(server.stdout.readline)).strip()
        part = None
        async with asyncio.timeout(30):
            while part is None or part.stat().st_size < 100_000:
                part = next((tmp_path / "hub" / STAGING).glob("*/*.part"), None)
                await asyncio.sleep(0.02)
        (worker,) = workers(psutil.Process(server.pid))
    finally:
        server.kill()
        server.wait()
    await asyncio.to_thread(worker.wait, 10)  # no orphan is left
    stalled.release()
    assert part.exists() and not list((tmp_path / "hub").glob("models--*/snapshots/*"))
    bed = await make_bed()
    over = await bed.jobs.wait(job_id, 30)
    assert (over.state, over.attempts) == (JobState.SUCCEEDED, 2), over.error
    assert over.result is not None and Path(over.result["path"]).read_bytes() == DATA
    assert over.result["fetched_bytes"] == len(DATA) - 100_000
