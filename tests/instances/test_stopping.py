"""Stopping: requests in flight end first, and gone means gone."""

from __future__ import annotations

import asyncio

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import DesiredState
from ostler.instances.errors import StartCancelled, StartFailed
from ostler.runtimes.base import StopFailed
from tests.instances.conftest import Fake


async def test_stop_waits_for_requests_in_flight_and_lends_no_more(house: Fake) -> None:
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    lease = await house.lease(model)
    stopping = asyncio.create_task(house.instances.stop("a", LOCAL_ADMIN))
    await house.until("instance.stopping")
    assert house.instances.try_lease(model.id) is None
    assert house.runtime.stops == []
    lease.release()
    lease.release()
    assert (await stopping).state == "stopped"
    assert house.runtime.world.alive == []
    assert house.models.get("a").desired_state is DesiredState.STOPPED
    (stopped,) = await house.happened("instance.stopped")
    assert stopped.data["cut_requests"] == 0


async def test_a_drain_is_bounded(house: Fake) -> None:
    house.settings.change(drain_timeout_s=0.05)
    model = await house.add("a")
    lease = await house.lease(model)
    assert (await house.instances.stop("a", LOCAL_ADMIN)).state == "stopped"
    (stopped,) = await house.happened("instance.stopped")
    assert stopped.data["cut_requests"] == 1
    lease.release()


async def test_stop_now_does_not_wait_for_requests(house: Fake) -> None:
    model = await house.add("a")
    lease = await house.lease(model)
    slow = asyncio.create_task(house.instances.stop("a", LOCAL_ADMIN))
    await house.until("instance.stopping")
    assert (await house.instances.stop("a", LOCAL_ADMIN, now=True)).state == "stopped"
    assert (await slow).state == "stopped"
    assert house.runtime.stops == ["a"]
    lease.release()


async def test_a_request_during_stop_waits_and_starts_the_model_again(house: Fake) -> None:
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    house.runtime.stop_gate.hold()
    stopping = asyncio.create_task(house.instances.stop("a", LOCAL_ADMIN))
    await house.runtime.stop_gate.asked.wait()
    request = asyncio.create_task(house.lease(model))
    await asyncio.sleep(0)
    assert house.state(model) == "stopping"
    house.runtime.stop_gate.release()
    await stopping
    (await request).release()
    assert house.runtime.starts == ["a", "a"]
    assert house.state(model) == "running"


async def test_stop_while_loading_is_prompt_and_tells_those_who_wait(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.load_gate.hold()
    request = asyncio.create_task(house.lease(model))
    person = asyncio.create_task(house.instances.start("a", LOCAL_ADMIN))
    await house.until("instance.loading")
    assert (await house.instances.stop("a", LOCAL_ADMIN)).state == "stopped"
    for waiting in (request, person):
        with pytest.raises(StartCancelled, match="stopped by local"):
            await waiting
    assert house.runtime.world.alive == []
    assert (await house.happened("instance.failed")) == []


async def test_stop_while_the_engine_is_being_created_leaves_nothing_behind(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.start_gate.hold()
    person = asyncio.create_task(house.instances.start("a", LOCAL_ADMIN))
    await house.runtime.start_gate.asked.wait()
    stopping = asyncio.create_task(house.instances.stop("a", LOCAL_ADMIN))
    with pytest.raises(StartCancelled):
        await person
    house.runtime.start_gate.release()
    await stopping
    assert house.state(model) == "stopped"
    assert house.runtime.world.alive == []


async def test_stopping_what_is_stopped_is_fine_and_clears_a_failure(house: Fake) -> None:
    model = await house.add("a")
    assert (await house.instances.stop("a", LOCAL_ADMIN)).state == "stopped"
    house.runtime.exit_while_loading(1)
    with pytest.raises(StartFailed):
        await house.instances.start("a", LOCAL_ADMIN)
    assert (await house.instances.stop("a", LOCAL_ADMIN)).state == "stopped"
    assert house.models.get(model.id).desired_state is DesiredState.STOPPED


async def test_an_engine_that_will_not_die_is_failed_and_never_called_stopped(house: Fake) -> None:
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    house.runtime.stop_error = StopFailed("process 7 does not end")
    with pytest.raises(StopFailed, match="process 7"):
        await house.instances.stop("a", LOCAL_ADMIN)
    assert house.state(model) == "failed"
    with pytest.raises(StopFailed):
        await house.instances.start("a", LOCAL_ADMIN)
    assert house.runtime.starts == ["a"], "no second engine beside one that still holds its memory"
    house.runtime.stop_error = None
    assert (await house.instances.start("a", LOCAL_ADMIN)).state == "running"
    assert len(house.runtime.world.alive) == 1


async def test_stop_all_stops_everything(house: Fake) -> None:
    for name in ("a", "b"):
        await house.add(name)
        await house.instances.start(name, LOCAL_ADMIN)
    views = await house.instances.stop_all(LOCAL_ADMIN)
    assert [view.state for view in views] == ["stopped", "stopped"]
    assert house.instances.views() == []
    assert house.runtime.world.alive == []


async def test_restart_is_a_new_engine(house: Fake) -> None:
    model = await house.add("a")
    before = await house.instances.start("a", LOCAL_ADMIN)
    after = await house.instances.restart("a", LOCAL_ADMIN)
    assert after.state == "running"
    assert after.id != before.id
    assert house.runtime.starts == ["a", "a"]
    assert len(house.runtime.world.alive) == 1
    assert house.state(model) == "running"
