"""A runtime that does not answer: nothing is taken for gone, and all goes on when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.models.records import Model
from ostler.runtimes.base import RuntimeAway
from tests.instances.conftest import Fake
from tests.runtimes.fake import FakeRuntime, end

Build = Callable[..., Awaitable[Fake]]


async def started(house: Fake) -> Model:
    model = await house.add("a")
    await house.instances.start(model.name, LOCAL_ADMIN)
    return model


async def test_a_start_is_refused_at_once_and_the_model_stays_stopped(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.go_away()
    with pytest.raises(RuntimeAway):
        await asyncio.wait_for(house.instances.start(model.name, LOCAL_ADMIN), 20)
    assert house.state(model) == "stopped"
    house.runtime.come_back()
    assert (await house.instances.start(model.name, LOCAL_ADMIN)).state == "running"


async def test_a_running_model_whose_engine_answers_runs_on_and_says_what_is_not_known(house: Fake) -> None:
    model = await started(house)
    house.runtime.go_away()
    view = house.instances.view(model.id)
    assert (view.state, view.reason) == ("running", "the runtime does not answer")
    lease = house.instances.try_lease(model.id)
    assert lease is not None
    lease.release()
    house.runtime.come_back()
    assert house.instances.view(model.id).reason is None


async def test_an_engine_that_died_meanwhile_is_started_again_once_the_runtime_is_back(house: Fake) -> None:
    model = await started(house)
    house.runtime.go_away()
    await end(house.runtime.world.engine("a"), 1)
    failed = await house.until("instance.failed")
    assert "the runtime does not answer" in failed.cause
    assert house.state(model) != "running"
    house.runtime.come_back()
    await house.until("instance.running", 2)
    assert house.state(model) == "running"
    assert len(house.runtime.world.alive) == 1


async def test_a_stop_is_told_and_finished_once_the_runtime_is_back(house: Fake) -> None:
    model = await started(house)
    house.runtime.go_away()
    with pytest.raises(RuntimeAway):
        await asyncio.wait_for(house.instances.stop(model.name, LOCAL_ADMIN), 20)
    view = house.instances.view(model.id)
    assert (view.state, view.reason) == ("stopping", "the runtime does not answer")
    house.runtime.come_back()
    await house.until("instance.stopped")
    assert house.runtime.world.alive == []


async def test_a_start_while_a_stop_waits_for_the_runtime_is_refused(house: Fake) -> None:
    model = await started(house)
    house.runtime.go_away()
    with pytest.raises(RuntimeAway):
        await house.instances.stop(model.name, LOCAL_ADMIN)
    with pytest.raises(RuntimeAway):
        await asyncio.wait_for(house.instances.start(model.name, LOCAL_ADMIN), 20)


@pytest.mark.parametrize("died", [False, True])
async def test_a_server_that_starts_meanwhile_concludes_nothing(build: Build, died: bool) -> None:
    first = await build()
    model = await started(first)
    await first.instances.close()
    if died:
        await end(first.runtime.world.engine("a"), 1)
    runtime = FakeRuntime(first.runtime.world)
    runtime.go_away()
    second = await build(runtime)
    if died:
        view = second.instances.view(model.id)
        assert (view.state, view.reason) == ("loading", "the runtime does not answer")
        runtime.come_back()
        await second.until("instance.restarting")
    await second.until("instance.running", 2)
    assert second.state(model) == "running"
    assert len(runtime.world.alive) == 1
    assert (runtime.starts == []) is not died


async def test_what_nobody_knows_is_ended_once_the_runtime_is_back(build: Build) -> None:
    first = await build()
    model = await first.add("a", policy={"auto_start": False})
    await first.instances.start(model.name, LOCAL_ADMIN)
    await first.instances.close()
    engine = first.runtime.world.engine("a")
    engine.instance_id += 100
    runtime = FakeRuntime(first.runtime.world)
    runtime.go_away()
    await build(runtime)
    runtime.come_back()
    await asyncio.wait_for(engine.ended.wait(), 20)


async def test_a_model_whose_image_is_pulled_says_so_and_its_start_can_be_called_off(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.pull_gate.hold()
    house.runtime.lack = "an image"
    started = asyncio.create_task(house.instances.start(model.name, LOCAL_ADMIN))
    await house.runtime.pull_gate.asked.wait()
    view = house.instances.view(model.id)
    assert (view.state, view.reason) == ("starting", "pulling an image")
    await house.until("instance.fetching")
    await house.instances.stop(model.name, LOCAL_ADMIN)
    assert house.state(model) == "stopped"
    with pytest.raises(Exception, match="was stopped by"):
        await started
    assert house.runtime.starts == []
