"""Room: who may run, who leaves for it, and how many may wait."""

from __future__ import annotations

import asyncio

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import DesiredState
from ostler.instances.errors import NoRoom, QueueFull, StillLoading
from ostler.instances.plan import Candidate, Places, Resident, Verdict, plan_room
from ostler.models.records import Model
from tests.instances.conftest import Fake

CANDIDATE = Candidate(99, "new")


def resident(model_id: int, idle_since: float = 0.0, **more: object) -> Resident:
    values = {"is_leaving": False, "is_busy": False, "may_leave": True, **more}
    return Resident(model_id, f"m{model_id}", idle_since=idle_since, **values)  # type: ignore[arg-type]


def test_there_is_room_below_the_limit_and_without_one() -> None:
    assert plan_room(CANDIDATE, [resident(1)], Places(2)).verdict is Verdict.GO
    assert plan_room(CANDIDATE, [resident(n) for n in range(50)], Places()).verdict is Verdict.GO


def test_the_longest_idle_leaves_lowest_priority_first() -> None:
    old, young = resident(1, 10.0), resident(2, 20.0)
    assert plan_room(CANDIDATE, [young, old], Places(2)).evict == (1,)
    assert plan_room(CANDIDATE, [young, resident(3, 5.0, priority=1)], Places(2)).evict == (2,)


def test_pinned_ones_never_leave_and_busy_ones_are_waited_for() -> None:
    pinned, busy = resident(1, may_leave=False), resident(2, is_busy=True)
    assert plan_room(CANDIDATE, [pinned, busy], Places(2)) == plan_room(CANDIDATE, [busy, pinned], Places(2))
    plan = plan_room(CANDIDATE, [pinned, busy], Places(2))
    assert (plan.verdict, plan.evict) == (Verdict.WAIT, ())
    assert plan_room(CANDIDATE, [pinned, pinned], Places(2)).verdict is Verdict.REFUSE


def test_one_that_is_leaving_makes_enough_room() -> None:
    plan = plan_room(CANDIDATE, [resident(1, is_leaving=True), resident(2)], Places(2))
    assert (plan.verdict, plan.evict) == (Verdict.WAIT, ())


def test_a_lowered_limit_makes_several_leave() -> None:
    assert plan_room(CANDIDATE, [resident(n, float(n)) for n in range(4)], Places(2)).evict == (0, 1, 2)


def test_a_start_that_may_not_evict_is_refused_when_all_places_are_taken() -> None:
    meek = Candidate(99, "new", may_evict=False)
    assert plan_room(meek, [resident(1)], Places(1)).verdict is Verdict.REFUSE


def test_a_full_group_lets_its_own_leave_and_nobody_else() -> None:
    places = Places(of_group={"chat": 1})
    mate, other = resident(1, 20.0, group="chat"), resident(2, 10.0, group="embed")
    newcomer = Candidate(99, "new", group="chat")
    assert plan_room(newcomer, [mate, other], places).evict == (1,)
    assert plan_room(Candidate(99, "new", group="embed"), [mate, other], places).verdict is Verdict.GO
    assert plan_room(Candidate(99, "new"), [mate, other], places).verdict is Verdict.GO
    busy = plan_room(newcomer, [resident(1, is_busy=True, group="chat"), other], places)
    assert (busy.verdict, busy.evict) == (Verdict.WAIT, ())
    pinned = plan_room(newcomer, [resident(1, may_leave=False, group="chat"), other], places)
    assert pinned.verdict is Verdict.REFUSE and "1 of 1 models of the group chat run" in pinned.reason


async def test_a_model_without_an_idle_timeout_leaves_for_one_of_its_group(house: Fake) -> None:
    house.settings.change(group_limits="chat=1")
    a, b = [await house.add(name, policy={"group": "chat", "idle_timeout_s": 0}) for name in "ab"]
    c = await house.add("c")
    (await house.lease(c)).release()
    (await house.lease(a)).release()
    (await house.lease(b)).release()
    assert {view.model_name for view in house.instances.views()} == {"b", "c"}


async def test_the_longest_idle_leaves_for_a_new_one(house: Fake) -> None:
    house.settings.change(max_running=2)
    a, b, c = [await house.add(name) for name in "abc"]
    (await house.lease(a)).release()
    (await house.lease(b)).release()
    (await house.lease(a)).release()
    (await house.lease(c)).release()
    assert [house.state(m) for m in (a, b, c)] == ["running", "stopped", "running"]
    (evicted,) = await house.happened("instance.evicted")
    assert evicted.subject_name == "b"
    assert evicted.data["for"] == "c" and evicted.data["idle_s"] >= 0
    assert len(house.runtime.world.alive) == 2


async def test_never_more_run_than_may_while_the_old_one_takes_its_time(house: Fake) -> None:
    house.settings.change(max_running=1)
    a, b = [await house.add(name) for name in "ab"]
    await house.instances.start("a", LOCAL_ADMIN)
    house.runtime.stop_gate.hold()
    request = asyncio.create_task(house.lease(b))
    await house.runtime.stop_gate.asked.wait()
    assert (house.state(a), house.state(b)) == ("stopping", "starting")
    assert house.runtime.starts == ["a"]
    house.runtime.stop_gate.release()
    (await request).release()
    assert house.models.get(a.id).desired_state is DesiredState.STOPPED


async def test_a_serving_model_is_not_evicted_but_waited_for(house: Fake) -> None:
    house.settings.change(max_running=1)
    a, b = [await house.add(name) for name in "ab"]
    stream = await house.lease(a)
    request = asyncio.create_task(house.lease(b))
    await asyncio.sleep(0.1)
    assert (house.state(a), house.state(b), house.runtime.starts) == ("running", "starting", ["a"])
    stream.release()
    (await request).release()
    assert house.runtime.starts == ["a", "b"]
    assert house.runtime.stops == ["a"]


async def test_where_all_are_pinned_a_start_is_refused_at_once(house: Fake) -> None:
    house.settings.change(max_running=1)
    a = await house.add("a", policy={"pinned": True})
    b = await house.add("b")
    await house.instances.start("a", LOCAL_ADMIN)
    for ask in (house.lease(b), house.instances.start("b", LOCAL_ADMIN)):
        with pytest.raises(NoRoom, match="1 of 1 models run") as caught:
            await ask
        assert caught.value.retry_after_s > 0
    assert (house.state(a), house.state(b)) == ("running", "stopped")
    (refused,) = await house.happened("instance.refused")
    assert refused.data["code"] == "no_room"


async def test_a_model_that_waits_for_its_place_can_be_stopped(house: Fake) -> None:
    house.settings.change(max_running=1)
    a, _, c = [await house.add(name) for name in "abc"]
    stream = await house.lease(a)
    waiting = asyncio.create_task(house.instances.start("b", LOCAL_ADMIN))
    later = asyncio.create_task(house.lease(c))
    await asyncio.sleep(0.05)
    assert (await house.instances.stop("b", LOCAL_ADMIN)).state == "stopped"
    with pytest.raises(Exception, match="was stopped"):
        await waiting
    stream.release()
    (await later).release()
    assert house.runtime.starts == ["a", "c"]


async def test_too_many_waiting_requests_are_refused_with_a_time_to_come_back(house: Fake) -> None:
    house.settings.change(max_queue=2)
    model = await house.add("a")
    house.runtime.load_gate.hold()
    waiting = [asyncio.create_task(house.lease(model)) for _ in range(2)]
    await house.until("instance.loading")
    for _ in range(3):
        with pytest.raises(QueueFull) as caught:
            await house.lease(model)
        assert caught.value.retry_after_s > 0
    assert len(await house.happened("instance.refused")) == 1, "a flood of requests, not of events"
    house.runtime.load_gate.release()
    for lease in await asyncio.gather(*waiting):
        lease.release()
    (await house.lease(model)).release()


async def test_a_request_that_waited_too_long_is_told_and_the_start_goes_on(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.load_gate.hold()
    with pytest.raises(StillLoading, match=r"a is (starting|loading)"):
        await house.lease(model, timeout_s=0.1)
    house.runtime.load_gate.release()
    (await house.lease(model)).release()
    assert house.runtime.starts == ["a"]


async def test_a_limit_of_requests_makes_the_next_one_wait(house: Fake) -> None:
    model = await house.add("a", policy={"max_concurrency": 1})
    first = await house.lease(model)
    assert house.instances.try_lease(model.id) is None
    second = asyncio.create_task(house.lease(model))
    await asyncio.sleep(0)
    assert not second.done()
    first.release()
    (await second).release()
    assert house.instances.view(model.id).in_flight == 0
    await house.models.update("a", {"policy": {"max_concurrency": 2}}, LOCAL_ADMIN)
    leases = [house.instances.try_lease(model.id) for _ in range(3)]
    assert [lease is None for lease in leases] == [False, False, True]


async def test_a_dry_run_says_who_would_leave(house: Fake) -> None:
    house.settings.change(max_running=1)
    a = await house.add("a")
    await house.add("b")
    (await house.lease(a)).release()
    assert (await house.instances.dry_run("b")).would_stop == ("a",)
    assert house.state(a) == "running"


async def test_those_who_wait_at_a_limit_start_anew_when_the_engine_dies(house: Fake) -> None:
    model = await house.add("a", policy={"max_concurrency": 1})
    first = await house.lease(model)
    waiting = [asyncio.create_task(house.lease(model)) for _ in range(2)]
    await asyncio.sleep(0)
    await house.runtime.exit("a", 1)
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    (second,) = [task.result() for task in done]
    assert second.instance_id != first.instance_id
    first.release()
    second.release()
    (await next(task for task in waiting if task not in done)).release()
    assert house.instances.view(model.id).in_flight == 0


async def use(house: Fake, model: Model, *, is_batch: bool) -> None:
    """One short request."""
    lease = await house.instances.lease(model.id, principal=LOCAL_ADMIN, timeout_s=20, is_batch=is_batch)
    lease.release()


async def test_a_model_for_interactive_work_starts_before_one_for_batch_work(house: Fake) -> None:
    house.settings.change(max_running=1)
    first, batch, interactive = [await house.add(name) for name in "abc"]
    stream = await house.lease(first)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(use(house, batch, is_batch=True))
        await asyncio.sleep(0.05)
        tasks.create_task(use(house, interactive, is_batch=False))
        await asyncio.sleep(0.05)
        stream.release()
    assert house.runtime.starts == ["a", "c", "b"]


async def test_an_interactive_request_lifts_the_batch_start_that_it_joins(house: Fake) -> None:
    house.settings.change(max_running=1)
    first, batch, later = [await house.add(name) for name in "abc"]
    stream = await house.lease(first)

    async with asyncio.TaskGroup() as tasks:
        for model, is_batch in ((batch, True), (later, False), (batch, False)):
            tasks.create_task(use(house, model, is_batch=is_batch))
            await asyncio.sleep(0.05)
        stream.release()
    assert house.runtime.starts == ["a", "b", "c"]


async def test_batch_work_leaves_half_of_the_waiting_places_to_others(house: Fake) -> None:
    house.settings.change(max_queue=2)
    model = await house.add("a")
    house.runtime.load_gate.hold()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(use(house, model, is_batch=True))
        await house.until("instance.loading")
        with pytest.raises(QueueFull, match="1 requests already wait"):
            await use(house, model, is_batch=True)
        tasks.create_task(use(house, model, is_batch=False))
        await asyncio.sleep(0)
        house.runtime.load_gate.release()
