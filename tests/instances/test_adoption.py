"""After a restart of the server: the truth, whatever the moment at which the last one died.

A server that dies is one whose rooms are closed without touching the engines: what the database and
the world then hold is what the next one finds. `test_kill.py` does it with a real kill -9.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from ostler.core.database import Database
from ostler.core.principals import LOCAL_ADMIN
from tests.instances.conftest import Fake, running_house
from tests.runtimes.fake import FakeRuntime, World, end


@pytest.fixture
def world() -> World:
    return World()


Server = Callable[..., AbstractAsyncContextManager[Fake]]


@pytest.fixture
async def server(database: Database, tmp_path: Path, models_dir: Path, world: World) -> AsyncIterator[Server]:
    """Makes one server after the other over the same database and world."""

    @asynccontextmanager
    async def make(runtime: FakeRuntime | None = None, **more: object) -> AsyncIterator[Fake]:
        runtime = runtime or FakeRuntime(world)
        async with running_house(database, tmp_path, runtime, house_type=Fake, **more) as house:  # type: ignore[arg-type]
            assert isinstance(house, Fake)
            yield house

    yield make
    await world.close()


async def test_a_running_engine_is_adopted_with_its_address_and_key(server: Server) -> None:
    async with server() as first:
        model = await first.add("a")
        lease = await first.lease(model)
        before = first.instances.view(model.id)
    async with server() as second:
        after = second.instances.view(model.id)
        assert (after.state, after.id, after.url) == ("running", before.id, before.url)
        assert (after.ready_at, after.load_seconds) == (before.ready_at, before.load_seconds)
        assert (after.cause, after.pid, after.drift) == ("demand", before.pid, False)
        adopted = second.instances.try_lease(model.id)
        assert adopted is not None
        assert (adopted.base_url, adopted.api_key) == (lease.base_url, lease.api_key)
        adopted.release()
        assert second.runtime.starts == []
        (event,) = await second.happened("instance.adopted")
        assert event.data["was"] == "running"
        assert (await second.instances.stop("a", LOCAL_ADMIN)).state == "stopped"
        assert second.runtime.world.alive == []


async def test_an_adopted_engine_is_watched_and_stops_when_idle(server: Server) -> None:
    async with server() as first:
        model = await first.add("a")
        (await first.lease(model)).release()
    async with server(settings={"idle_timeout_s": 0.1}) as second:
        await second.until("instance.idle")


async def test_a_wanted_engine_that_died_meanwhile_is_said_and_started_again(
    server: Server, world: World
) -> None:
    async with server() as first:
        model = await first.add("a")
        await first.instances.start("a", LOCAL_ADMIN)
    await end(world.engine("a"), None)
    async with server() as second:
        failed = await second.until("instance.failed")
        assert "while the server was away" in failed.cause
        await second.until("instance.running", 2)
        assert second.state(model) == "running"
        assert second.instances.view(model.id).cause == "person"


async def test_an_unwanted_engine_that_died_meanwhile_is_stopped(server: Server, world: World) -> None:
    async with server() as first:
        model = await first.add("a")
        (await first.lease(model)).release()
    await end(world.engine("a"), None)
    async with server() as second:
        assert second.state(model) == "stopped"
        assert await second.happened("instance.stopped")
        assert second.runtime.starts == []


async def test_an_unwanted_engine_that_crashed_meanwhile_is_failed(server: Server, world: World) -> None:
    async with server() as first:
        model = await first.add("a")
        (await first.lease(model)).release()
    await end(world.engine("a"), -11)
    async with server() as second:
        view = second.instances.view(model.id)
        assert view.state == "failed"
        assert view.failure is not None and view.failure["exit_code"] == -11


async def test_a_wanted_model_that_is_not_there_at_all_is_started(server: Server, world: World) -> None:
    async with server() as first:
        model = await first.add("a")
        await first.instances.start("a", LOCAL_ADMIN)
    await world.close()
    world.engines.clear()
    async with server() as second:
        await second.until("instance.running", 2)
        assert second.state(model) == "running"


async def test_an_engine_whose_launch_was_not_noted_is_adopted(server: Server, world: World) -> None:
    """The server died between launching and storing the handle: the row says starting."""
    runtime = FakeRuntime(world)
    async with server(runtime) as first:
        model = await first.add("a")
        launch = runtime.launch

        async def launch_and_hang(*args: object, **kwargs: object) -> None:
            await launch(*args, **kwargs)  # type: ignore[arg-type]
            await asyncio.Event().wait()

        runtime.launch = launch_and_hang  # type: ignore[method-assign, assignment]
        await first.instances.start("a", LOCAL_ADMIN, wait=False)
        async with asyncio.timeout(20):
            while not world.alive:
                await asyncio.sleep(0.01)
        assert first.state(model) == "starting"
    async with server() as second:
        lease = await second.lease(model)
        assert lease.base_url == world.engine("a").handle.url  # type: ignore[union-attr]
        lease.release()
        assert second.runtime.starts == []
        assert len(world.alive) == 1


async def test_a_launch_that_never_happened_is_not_believed(server: Server, world: World) -> None:
    runtime = FakeRuntime(world)
    async with server(runtime) as first:
        model = await first.add("a")
        runtime.start_gate.hold()
        request = asyncio.create_task(first.lease(model))
        await runtime.start_gate.asked.wait()
    with pytest.raises(Exception, match="the server is ending"):
        await request
    async with server() as second:
        assert second.state(model) == "stopped"
        (stopped,) = await second.happened("instance.stopped")
        assert stopped.data["was"] == "starting"


async def test_an_engine_that_still_loads_is_adopted_as_loading(server: Server, world: World) -> None:
    runtime = FakeRuntime(world)
    runtime.load_gate.hold()
    async with server(runtime) as first:
        model = await first.add("a")
        await first.instances.start("a", LOCAL_ADMIN, wait=False)
        await first.until("instance.loading")
    async with server() as second:
        assert second.state(model) == "loading"
        assert second.instances.try_lease(model.id) is None
        request = asyncio.create_task(second.lease(model))
        await asyncio.sleep(0)
        runtime.load_gate.release()
        (await request).release()
        assert second.state(model) == "running"
        assert len(world.engines) == 1


async def test_an_engine_that_fell_silent_is_not_called_running(server: Server, world: World) -> None:
    async with server() as first:
        model = await first.add("a")
        (await first.lease(model)).release()
    silent = world.engine("a").server
    assert silent is not None
    silent.is_ready = False
    async with server() as second:
        assert second.state(model) == "loading"
        silent.is_ready = True
        (await second.lease(model)).release()


async def test_a_stop_that_was_begun_is_finished(server: Server, world: World) -> None:
    runtime = FakeRuntime(world)
    async with server(runtime) as first:
        model = await first.add("a")
        await first.instances.start("a", LOCAL_ADMIN)
        runtime.stop_gate.hold()
        stopping = asyncio.create_task(first.instances.stop("a", LOCAL_ADMIN))
        await runtime.stop_gate.asked.wait()
    await asyncio.gather(stopping, return_exceptions=True)
    assert len(world.alive) == 1
    async with server() as second:
        await second.until("instance.stopped")
        assert second.state(model) == "stopped"
        assert world.alive == []
        assert second.runtime.starts == []


async def test_an_engine_that_belongs_to_no_launch_is_stopped(
    server: Server, world: World, database: Database
) -> None:
    async with server() as first:
        await first.add("a")
        await first.instances.start("a", LOCAL_ADMIN)
    async with database.connect() as connection:
        await connection.exec_driver_sql("DELETE FROM models")
        await connection.exec_driver_sql("DELETE FROM model_aliases")
        await connection.commit()
    async with server() as second:
        assert world.alive == []
        assert second.instances.views() == []


async def test_a_failure_is_still_told_after_a_restart(server: Server, world: World) -> None:
    runtime = FakeRuntime(world)
    async with server(runtime) as first:
        model = await first.add("a")
        runtime.exit_while_loading(3)
        with pytest.raises(Exception, match="exit code 3"):
            await first.lease(model)
    async with server() as second:
        view = second.instances.view(model.id)
        assert view.state == "failed" and view.failure is not None
        assert view.failure["exit_code"] == 3
        assert (await second.instances.stop("a", LOCAL_ADMIN)).state == "stopped"
    async with server() as third:
        assert third.state(model) == "stopped"


async def test_models_with_auto_start_start_with_the_server_by_priority(server: Server) -> None:
    async with server() as first:
        await first.add("a", policy={"auto_start": True})
        await first.add("b", policy={"auto_start": True, "priority": 5})
        assert first.runtime.starts == []
    async with server(settings={"max_running": 1}) as second:
        await second.until("instance.running")
        await second.until("instance.refused")
        assert second.runtime.starts == ["b"], "what starts with the server pushes nobody out"
        view = second.instances.view(second.models.get("b").id)
        assert (view.state, view.cause, view.expires_at) == ("running", "auto", None)


async def test_engines_can_be_stopped_with_the_server(server: Server, world: World) -> None:
    async with server() as first:
        model = await first.add("a")
        await first.instances.start("a", LOCAL_ADMIN)
        await first.instances.close(stop_engines=True)
        assert world.alive == []
    async with server() as second:
        await second.until("instance.running", 2)
        assert second.state(model) == "running", "it is still wanted"


async def test_a_changed_recipe_is_drift_after_a_restart_too(server: Server) -> None:
    async with server() as first:
        model = await first.add("a")
        await first.instances.start("a", LOCAL_ADMIN)
        await first.models.update("a", {"options": {"ctx_size": 128}}, LOCAL_ADMIN)
    async with server() as second:
        async with asyncio.timeout(20):
            while not second.instances.view(model.id).drift:
                await asyncio.sleep(0.01)
