"""Engines that die or fall silent while they serve."""

from __future__ import annotations

import asyncio

import pytest
from pyreqwest.client import ClientBuilder

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import InstanceState
from ostler.instances.errors import StartFailed
from ostler.instances.restarts import Faults, backoff_s
from tests.instances.conftest import Fake


async def ask(url: str) -> str:
    async with ClientBuilder().build() as client:
        return await (await client.get(url).build().send()).text()


async def test_an_engine_killed_while_serving_is_said_and_started_again(house: Fake) -> None:
    model = await house.add("a")
    before = await house.instances.start("a", LOCAL_ADMIN)
    stream = await house.lease(model)
    await house.runtime.exit("a", -9)
    failed = await house.until("instance.failed")
    assert (failed.data["exit_code"], failed.data["in_flight"]) == (-9, 1)
    stream.release(broken=True)
    lease = await house.lease(model)
    assert lease.instance_id != before.id
    lease.release()
    view = house.instances.view(model.id)
    assert (view.state, view.restarts, view.in_flight) == ("running", 1, 0)
    (restarting,) = await house.happened("instance.restarting")
    assert restarting.data["restarts"] == 1


async def test_a_request_during_the_pause_before_a_restart_waits_for_it(house: Fake) -> None:
    house.settings.change(restart_backoff_s=0.2)
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    await house.runtime.exit("a", 1)
    await house.until("instance.restarting")
    view = house.instances.view(model.id)
    assert view.state == "failed"
    assert view.reason is not None and "starts again in" in view.reason
    (await house.lease(model)).release()
    assert house.runtime.starts == ["a", "a"]


async def test_a_person_need_not_wait_for_the_pause(house: Fake) -> None:
    house.settings.change(restart_backoff_s=60.0)
    await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    await house.runtime.exit("a", 1)
    await house.until("instance.restarting")
    assert (await house.instances.start("a", LOCAL_ADMIN)).state == "running"


async def test_a_stop_during_the_pause_ends_it(house: Fake) -> None:
    house.settings.change(restart_backoff_s=60.0)
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    await house.runtime.exit("a", 1)
    await house.until("instance.restarting")
    assert (await house.instances.stop("a", LOCAL_ADMIN)).state == "stopped"
    assert house.runtime.starts == ["a"]
    assert house.state(model) == "stopped"


async def test_after_too_many_faults_in_a_row_it_is_failed(house: Fake) -> None:
    model = await house.add("a", policy={"restart_limit": 2})
    await house.instances.start("a", LOCAL_ADMIN)
    house.runtime.exit_while_loading(5, times=2)
    await house.runtime.exit("a", 4)
    await house.until("instance.failed", 3)
    with pytest.raises(StartFailed, match="exit code 5"):
        await house.lease(model)
    assert house.state(model) == "failed"
    assert house.runtime.starts == ["a", "a", "a"]
    assert [e.data["restarts"] for e in await house.happened("instance.restarting")] == [1, 2]


async def test_a_restart_limit_of_zero_means_no_restart(house: Fake) -> None:
    model = await house.add("a", policy={"restart_limit": 0})
    await house.instances.start("a", LOCAL_ADMIN)
    await house.runtime.exit("a", 1)
    await house.until("instance.failed")
    async with asyncio.timeout(20):
        while house.instances._keepers[model.id]._task is not None:
            await asyncio.sleep(0.01)
    assert house.state(model) == "failed"
    assert house.runtime.starts == ["a"]


def test_the_pause_doubles_up_to_a_minute() -> None:
    assert [backoff_s(n, 1.0) for n in (1, 2, 3, 7, 1000)] == [1.0, 2.0, 4.0, 60.0, 60.0]
    assert backoff_s(3, 0.0) == 0.0


def test_healthy_time_resets_the_count_of_faults() -> None:
    faults = Faults()
    assert faults.note(healthy_s=1.0, reset_s=300.0) == 1
    assert faults.note(healthy_s=None, reset_s=300.0) == 2
    assert faults.note(healthy_s=300.0, reset_s=300.0) == 1


async def test_an_engine_that_answers_no_probe_is_restarted(house: Fake) -> None:
    model = await house.add("a")
    first = await house.instances.start("a", LOCAL_ADMIN)
    await ask(f"{first.url}/sick")
    failed = await house.until("instance.failed")
    assert "3 health probes" in failed.cause
    (await house.lease(model)).release()
    assert house.runtime.stops == ["a"], "the sick one was ended first"
    assert house.instances.view(model.id).id != first.id


async def test_an_engine_too_busy_to_answer_probes_is_left_alone_until_it_serves_nobody(house: Fake) -> None:
    house.settings.change(probe_timeout_s=0.05, probe_failures=2)
    model = await house.add("a")
    first = await house.instances.start("a", LOCAL_ADMIN)
    lease = await house.lease(model)
    await ask(f"{first.url}/mute")
    async with asyncio.timeout(20):
        while int(await ask(f"{first.url}/unanswered")) < 6:
            await asyncio.sleep(0.01)
    assert house.instances.view(model.id).state is InstanceState.RUNNING
    lease.release()
    failed = await house.until("instance.failed")
    assert "2 health probes" in failed.cause


async def test_a_broken_answer_makes_it_look_at_once(house: Fake) -> None:
    house.settings.change(probe_interval_s=3600.0, probe_failures=1)
    model = await house.add("a")
    first = await house.instances.start("a", LOCAL_ADMIN)
    await ask(f"{first.url}/sick")
    lease = await house.lease(model)
    lease.release(broken=True)
    await house.until("instance.failed")


async def test_a_released_lease_of_a_dead_engine_does_not_count_for_the_next(house: Fake) -> None:
    model = await house.add("a")
    old = await house.lease(model)
    await house.runtime.exit("a", 1)
    await house.until("instance.running", 2)
    new = await house.lease(model)
    old.release()
    assert house.instances.view(model.id).in_flight == 1
    new.release()


async def test_a_database_that_fails_is_said_and_the_next_start_begins_cleanly(
    house: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = await house.add("a")
    store = house.instances._house.store
    house.runtime.load_gate.hold()
    starting = asyncio.create_task(house.instances.start("a", LOCAL_ADMIN))
    await house.until("instance.loading")

    async def broken(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "move", broken)
        house.runtime.load_gate.release()
        with pytest.raises(OSError, match="disk full"):
            await starting
    assert house.state(model) == "failed"
    assert house.instances.try_lease(model.id) is None
    assert (await house.instances.start("a", LOCAL_ADMIN)).state == "running"
    assert len(house.runtime.world.alive) == 1
