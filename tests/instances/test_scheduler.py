"""The line of starts: who comes first, and what happens when looking fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ostler.core.clock import Clock
from ostler.core.settings import Settings
from ostler.instances.errors import NoRoom
from ostler.instances.plan import Candidate, Plan, Resident, Verdict
from ostler.instances.scheduler import AGEING_S, BATCH_BEHIND, Scheduler


class HandClock(Clock):
    """A clock that a test moves."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class OneRoom:
    """Room for one at a time, once it is open; a look may fail."""

    is_open: bool = False
    look_error: Exception | None = None

    async def look(self) -> None:
        if self.look_error:
            raise self.look_error
        await asyncio.sleep(0)

    def residents(self) -> Sequence[Resident]:
        return []

    def plan(self, candidate: Candidate, residents: Sequence[Resident]) -> Plan:
        is_free = self.is_open and not residents
        return Plan(Verdict.GO) if is_free else Plan(Verdict.WAIT, reason="the room is taken")

    def evict(self, model_id: int, for_name: str) -> bool:
        raise AssertionError

    def finish(self, model_id: int, for_name: str) -> bool:
        raise AssertionError


def wants(model_id: int, priority: int = 0) -> Candidate:
    name = f"m{model_id}"
    return Candidate(model_id, name, priority)


async def order_of(
    scheduler: Scheduler, room: OneRoom, clock: HandClock, *arrivals: tuple[float, int]
) -> list[int]:
    """Let starts of these priorities arrive at these seconds; the order in which they get their place."""
    order: list[int] = []

    async def start(number: int, priority: int) -> None:
        await scheduler.admit(wants(number, priority), timeout_s=20)
        order.append(number)
        scheduler.release(number)

    async with asyncio.TaskGroup() as tasks:
        for number, (at_s, priority) in enumerate(arrivals):
            clock.now_s = at_s
            tasks.create_task(start(number, priority))
            await asyncio.sleep(0)
        room.is_open = True
        scheduler.poke()
    return order


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def room() -> OneRoom:
    return OneRoom()


@pytest.fixture
def scheduler(room: OneRoom, clock: HandClock) -> Scheduler:
    return Scheduler(room, clock, Settings)


async def test_a_higher_priority_comes_first_and_equals_in_order(
    scheduler: Scheduler, room: OneRoom, clock: HandClock
) -> None:
    assert await order_of(scheduler, room, clock, (0, 0), (1, 0), (2, 1)) == [2, 0, 1]


async def test_who_has_waited_long_enough_comes_before_a_later_one_of_higher_priority(
    scheduler: Scheduler, room: OneRoom, clock: HandClock
) -> None:
    assert await order_of(scheduler, room, clock, (0, 0), (AGEING_S + 1, 1)) == [0, 1]
    room.is_open = False
    assert await order_of(scheduler, room, clock, (100, 0), (100 + 2 * AGEING_S, 9)) == [1, 0]


async def test_a_wait_that_ends_in_nothing_says_why(scheduler: Scheduler) -> None:
    with pytest.raises(NoRoom, match="there is no room for m1: the room is taken"):
        await scheduler.admit(wants(1), timeout_s=0.05)
    assert not scheduler.has_waiting


async def test_a_look_that_fails_is_told_to_those_who_wait_and_does_not_end_the_queue(
    scheduler: Scheduler, room: OneRoom
) -> None:
    room.look_error = RuntimeError("the driver is gone")
    with pytest.raises(RuntimeError, match="driver is gone"):
        await scheduler.admit(wants(1), timeout_s=20)
    room.look_error, room.is_open = None, True
    await scheduler.admit(wants(1), timeout_s=20)


async def test_one_that_gives_up_at_the_head_lets_the_next_go_on(scheduler: Scheduler, room: OneRoom) -> None:
    first = asyncio.create_task(scheduler.admit(wants(1), timeout_s=20))
    second = asyncio.create_task(scheduler.admit(wants(2), timeout_s=20))
    await asyncio.sleep(0.01)
    first.cancel()
    room.is_open = True
    await second
    assert first.cancelled() and not scheduler.has_waiting
    await scheduler.close()


async def test_interactive_starts_come_before_batch_and_batch_before_much_later_ones(
    scheduler: Scheduler, room: OneRoom, clock: HandClock
) -> None:
    order: list[str] = []

    async def start(number: int, at_s: float, *, is_batch: bool) -> None:
        clock.now_s = at_s
        await scheduler.admit(replace(wants(number), is_batch=is_batch), timeout_s=20)
        order.append(f"{'batch' if is_batch else 'interactive'} at {at_s:g}")
        scheduler.release(number)

    async with asyncio.TaskGroup() as tasks:
        for number, (at_s, is_batch) in enumerate([(0, True), (10, False), (299, False), (301, False)]):
            tasks.create_task(start(number, at_s, is_batch=is_batch))
            await asyncio.sleep(0)
        room.is_open = True
        scheduler.poke()
    assert order == ["interactive at 10", "interactive at 299", "batch at 0", "interactive at 301"]


async def test_a_batch_start_that_somebody_joins_moves_up(
    scheduler: Scheduler, room: OneRoom, clock: HandClock
) -> None:
    order: list[int] = []

    async def start(candidate: Candidate) -> None:
        await scheduler.admit(candidate, timeout_s=20)
        order.append(candidate.model_id)
        scheduler.release(candidate.model_id)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(start(replace(wants(1), is_batch=True)))
        await asyncio.sleep(0)
        clock.now_s = 5
        tasks.create_task(start(wants(2)))
        await asyncio.sleep(0)
        scheduler.change(wants(1))
        room.is_open = True
        scheduler.poke()
    assert order == [1, 2]


@given(
    st.lists(st.tuples(st.floats(0, 2000), st.integers(-3, 3), st.booleans()), min_size=1, max_size=12),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_nobody_waits_behind_those_who_came_much_later(arrivals: list[tuple[float, int, bool]]) -> None:
    """However many interactive starts of higher priority come: each is passed only within a bounded time."""
    arrivals = sorted(arrivals, key=lambda arrival: arrival[0])
    order: list[int] = []

    async def start(scheduler: Scheduler, number: int, priority: int, is_batch: bool) -> None:
        await scheduler.admit(replace(wants(number, priority), is_batch=is_batch), timeout_s=20)
        order.append(number)
        scheduler.release(number)

    async def run() -> None:
        room, clock = OneRoom(), HandClock()
        scheduler = Scheduler(room, clock, Settings)
        async with asyncio.TaskGroup() as tasks:
            for number, (at_s, priority, is_batch) in enumerate(arrivals):
                clock.now_s = at_s
                tasks.create_task(start(scheduler, number, priority, is_batch))
                await asyncio.sleep(0)
            room.is_open = True
            scheduler.poke()

    asyncio.run(run())
    assert sorted(order) == list(range(len(arrivals)))
    for place, later in enumerate(order):
        for earlier in order[place + 1 :]:
            if earlier < later:  # it was passed
                steps = arrivals[later][1] - arrivals[earlier][1] + BATCH_BEHIND
                assert arrivals[later][0] - arrivals[earlier][0] <= steps * AGEING_S
