"""Idle engines stop, counted from the end of the last request, by a clock that cannot jump."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from ostler.core.clock import Clock
from ostler.core.principals import LOCAL_ADMIN
from tests.instances.conftest import Fake

IDLE = {"idle_timeout_s": 0.15}


async def test_a_model_started_on_demand_stops_when_idle(house: Fake) -> None:
    model = await house.add("a", policy=IDLE)
    (await house.lease(model)).release()
    assert house.instances.view(model.id).expires_at is not None
    idle = await house.until("instance.idle")
    assert idle.data["idle_s"] == 0.15
    await house.until("instance.stopped")
    assert house.runtime.world.alive == []


async def test_idle_time_counts_from_the_end_of_the_last_stream(house: Fake) -> None:
    model = await house.add("a", policy=IDLE)
    stream = await house.lease(model)
    began = house.runtime.world.engine("a")
    async with asyncio.timeout(20):  # several probes later, far beyond the idle time, it still serves
        await asyncio.sleep(0.4)
    view = house.instances.view(model.id)
    assert (view.state, view.in_flight, view.expires_at) == ("running", 1, None)
    assert not began.ended.is_set()
    released_at = asyncio.get_running_loop().time()
    stream.release()
    await house.until("instance.idle")
    assert asyncio.get_running_loop().time() - released_at >= 0.15


async def test_a_request_in_the_meantime_puts_the_end_off(house: Fake) -> None:
    model = await house.add("a", policy={"idle_timeout_s": 60.0})
    (await house.lease(model)).release()
    first = house.instances.view(model.id).expires_at
    await asyncio.sleep(0.02)
    (await house.lease(model)).release()
    second = house.instances.view(model.id).expires_at
    assert first is not None and second is not None and second > first


async def test_the_setting_holds_where_the_model_says_nothing(house: Fake) -> None:
    house.settings.change(idle_timeout_s=0.1)
    model = await house.add("b")
    (await house.lease(model)).release()
    await house.until("instance.idle")


async def test_a_model_that_a_person_started_does_not_stop_by_itself(house: Fake) -> None:
    house.settings.change(idle_timeout_s=0.01)
    kept = await house.add("a")
    pinned = await house.add("b", policy={"pinned": True})
    await house.instances.start("a", LOCAL_ADMIN)
    (await house.lease(pinned)).release()
    other = await house.add("c")
    (await house.lease(other)).release()
    await house.until("instance.idle")  # of c, whose idle time began last
    assert (house.state(kept), house.state(pinned)) == ("running", "running")
    assert house.instances.view(kept.id).expires_at is None


class JumpingClock(Clock):
    """A wall clock that somebody sets; monotonic time goes on as it is."""

    jump = timedelta()

    def now(self) -> datetime:
        return super().now() + self.jump


async def test_a_jumping_wall_clock_stops_nothing(build: Callable[..., Awaitable[Fake]]) -> None:
    clock = JumpingClock()
    house = await build(clock=clock)
    model = await house.add("a", policy={"idle_timeout_s": 600.0})
    other = await house.add("b", policy={"idle_timeout_s": 0.1})
    (await house.lease(model)).release()
    clock.jump = timedelta(days=400)
    (await house.lease(other)).release()
    await house.until("instance.idle")  # b is looked at by the same rules, and its time has come
    assert house.state(model) == "running"
    clock.jump = timedelta(days=-400)
    view = house.instances.view(model.id)
    assert view.expires_at is not None
    assert timedelta(seconds=590) < view.expires_at - clock.now() <= timedelta(seconds=600)
    (await house.lease(model)).release()
    assert house.runtime.starts == ["a", "b"]
