"""A server that is killed with -9, with the real engine: the next one tells the truth."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from pyreqwest.client import ClientBuilder

from ostler.core.database import Database
from ostler.core.principals import LOCAL_ADMIN
from ostler.runtimes.process import ProcessRuntime
from tests.instances.conftest import House, running_house

pytestmark = pytest.mark.real

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
async def folder(database: Database, tmp_path: Path, models_dir: Path) -> AsyncIterator[Path]:
    """The folder of one server's life, with a model `a`; no engine outlives the test."""
    runtime = ProcessRuntime(tmp_path / "engines", 1_000_000)
    async with running_house(database, tmp_path, runtime) as house:
        await house.add("a")
    yield tmp_path
    for found in await runtime.discover():
        await runtime.stop(found.handle, grace_s=0)


async def serving(folder: Path, what: str, *more: str) -> Process:
    """The program `serving.py` in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.instances.serving", str(folder), what, "a", *more),
        cwd=CHECKOUT,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )


async def killed(folder: Path, what: str) -> dict[str, object]:
    """What a server printed when all was as asked; then it was killed."""
    process = await serving(folder, what)
    assert process.stdout is not None
    told: dict[str, object] = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
    process.kill()
    await process.wait()
    return told


@asynccontextmanager
async def next_server(database: Database, folder: Path) -> AsyncIterator[House]:
    runtime = ProcessRuntime(folder / "engines", 1_000_000)
    async with running_house(database, folder, runtime) as house:
        yield house
        await house.instances.stop_all(LOCAL_ADMIN, now=True)


async def status(url: str) -> int:
    async with ClientBuilder().build() as client:
        return (await client.get(f"{url}/health").build().send()).status


async def test_a_killed_server_leaves_its_engine_serving_and_the_next_adopts_it(
    folder: Path, database: Database
) -> None:
    told = await killed(folder, "start")
    assert await status(str(told["url"])) == 200, "the engine outlives the server"
    async with next_server(database, folder) as house:
        model = house.models.get("a")
        view = house.instances.view(model.id)
        assert (view.state, view.id, view.pid, view.url) == ("running", told["id"], told["pid"], told["url"])
        lease = await house.lease(model)
        async with ClientBuilder().build() as client:
            request = client.get(f"{lease.base_url}/slots").bearer_auth(lease.api_key)
            assert (await request.build().send()).status == 200, "its key is known again"
        lease.release()
        os.kill(int(str(told["pid"])), signal.SIGKILL)  # not our child: its end is still seen at once
        failed = await house.until("instance.failed")
        assert failed.data["exit_code"] is None, "nobody of ours was there to see it"
        await house.until("instance.running", 2)


async def test_an_engine_that_died_with_the_server_is_started_again_where_it_is_wanted(
    folder: Path, database: Database
) -> None:
    told = await killed(folder, "start")
    os.kill(int(str(told["pid"])), signal.SIGKILL)
    psutil.wait_procs([psutil.Process(int(str(told["pid"])))], timeout=20)
    async with next_server(database, folder) as house:
        await house.until("instance.failed")
        await house.until("instance.running", 2)
        assert house.instances.view(house.models.get("a").id).pid != told["pid"]


@pytest.mark.parametrize(
    ("what", "point", "states", "running"),
    [
        ("start", "after-begin", ("failed", "starting", "loading", "running"), True),
        ("lease", "after-launch", ("loading", "running"), True),
        ("lease", "before-running", ("loading", "running"), True),
        ("stop", "after-stopping", ("stopping", "stopped"), False),
    ],
)
async def test_killed_at_any_point_the_next_start_tells_the_truth(
    folder: Path, database: Database, what: str, point: str, states: tuple[str, ...], running: bool
) -> None:
    process = await serving(folder, what, point)
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    async with next_server(database, folder) as house:
        model = house.models.get("a")
        assert house.instances.view(model.id).state.value in states
        if running:
            lease = await house.lease(model)
            assert await status(lease.base_url) == 200
            lease.release()
        else:
            while house.instances.view(model.id).state.is_active:
                await house.until("instance.stopped")
        alive = [
            found
            for found in await house.runtime.discover()
            if (await house.runtime.inspect(found.handle)).is_alive
        ]
        assert len(alive) == (1 if running else 0), "no engine is forgotten, and none is there twice"
