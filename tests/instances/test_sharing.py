"""Models with the same launch share one running engine, each with a life of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ostler.core.principals import LOCAL_ADMIN, Principal, Role
from ostler.instances.errors import StartCancelled, StartFailed
from ostler.models.records import Model, NewModel
from ostler.models.service import ModelInUse
from tests.instances.conftest import Fake

IDLE = {"idle_timeout_s": 0.15}


async def add(house: Fake, name: str, file: str = "a", **recipe: Any) -> Model:
    """A model of that file."""
    return await house.models.create(NewModel({"path": f"{file}.gguf"}, name=name, **recipe), LOCAL_ADMIN)


async def start(house: Fake, model: Model) -> None:
    await house.instances.start(model.id, LOCAL_ADMIN)


async def stop(house: Fake, model: Model, **how: Any) -> None:
    await house.instances.stop(model.id, LOCAL_ADMIN, **how)


async def two_on_one(house: Fake, **policy: Any) -> tuple[Model, Model]:
    """Two models that run on the engine of the first."""
    first, second = await add(house, "first", policy=policy), await add(house, "second", policy=policy)
    await start(house, first)
    await start(house, second)
    assert len(house.runtime.world.alive) == 1
    return first, second


async def test_two_models_with_the_same_launch_have_one_engine(house: Fake) -> None:
    first, second = await two_on_one(house)
    one, two = house.instances.view(first.id), house.instances.view(second.id)
    assert (one.state, two.state) == ("running", "running")
    assert (one.shares, two.shares) == (None, "first") and one.shared_with == ("second",)
    assert (two.id, two.pid, two.url) == (one.id, one.pid, one.url)
    assert one.memory_bytes is not None or one.estimated_bytes is not None
    assert (two.memory_bytes, two.estimated_bytes) == (None, None), "it is counted once"
    lease = await house.lease(second)
    assert lease.served_name == "first"
    assert house.instances.view(second.id).in_flight == 1
    assert house.instances.view(first.id).in_flight == 0
    lease.release()
    (told,) = [e for e in await house.happened("instance.running") if e.subject_name == "second"]
    assert told.data["shares"] == "first"


@pytest.mark.parametrize(
    "other",
    [{"options": {"context_length": 128}}, {"env": {"LLAMA_X": "1"}}, {"policy": {"share": False}}],
    ids=["options", "environment", "policy"],
)
async def test_a_model_with_another_launch_has_its_own_engine(house: Fake, other: dict[str, Any]) -> None:
    first, second = await add(house, "first"), await add(house, "second", **other)
    await start(house, first)
    await start(house, second)
    assert len(house.runtime.world.alive) == 2
    assert house.instances.view(second.id).shares is None


async def test_options_for_one_launch_give_it_its_own_engine(house: Fake) -> None:
    first, second = await add(house, "first"), await add(house, "second")
    await start(house, first)
    await house.instances.start(second.id, LOCAL_ADMIN, overrides={"context_length": 64})
    assert len(house.runtime.world.alive) == 2


async def test_a_dry_run_says_whose_engine_it_would_share(house: Fake) -> None:
    house.settings.change(max_running=1)
    first, second = await add(house, "first"), await add(house, "second")
    alone = await house.instances.dry_run("second")
    assert not alone.has("shares_engine")
    await start(house, first)
    run = await house.instances.dry_run("second")
    assert run.has("shares_engine") and run.fits and not run.would_stop and not run.errors
    assert not (await house.instances.dry_run("first")).has("shares_engine")
    await house.models.update(second.id, {"options": {"context_length": 64}}, LOCAL_ADMIN)
    assert not (await house.instances.dry_run("second")).has("shares_engine")


async def test_starts_at_the_same_moment_are_one_engine(house: Fake) -> None:
    models = [await add(house, f"m{n}") for n in range(5)]
    await asyncio.gather(*(start(house, model) for model in models))
    assert len(house.runtime.starts) == 1
    assert {house.state(model) for model in models} == {"running"}


async def test_while_the_engine_loads_both_are_loading_and_both_become_ready(house: Fake) -> None:
    house.runtime.load_gate.hold()
    first, second = await add(house, "first"), await add(house, "second")
    starts = asyncio.gather(start(house, first), start(house, second))
    await house.until("instance.loading")
    waiting = asyncio.create_task(house.lease(second))
    await house.runtime.load_gate.asked.wait()
    assert {house.state(first), house.state(second)} <= {"loading", "starting"}
    house.runtime.load_gate.release()
    await starts
    (await waiting).release()
    assert house.state(second) == "running"


async def test_stopping_a_guest_leaves_the_engine_to_the_other(house: Fake) -> None:
    first, second = await two_on_one(house)
    await stop(house, second)
    assert (house.state(first), house.state(second)) == ("running", "stopped")
    assert house.instances.view(first.id).shared_with == ()
    assert len(house.runtime.world.alive) == 1 and house.runtime.stops == []
    (await house.lease(first)).release()


async def test_stopping_the_host_hands_the_engine_over_and_breaks_nothing_off(house: Fake) -> None:
    first, second = await two_on_one(house)
    of_first, of_second = await house.lease(first), await house.lease(second)
    stopping = asyncio.create_task(stop(house, first))
    await house.until("instance.leaving")
    assert house.state(first) == "stopping", "its own request is still answered"
    assert house.state(second) == "running" and house.instances.view(second.id).shares is None
    (await house.lease(second)).release()
    of_first.release()
    await stopping
    of_second.release()
    assert (house.state(first), house.state(second)) == ("stopped", "running")
    assert len(house.runtime.world.alive) == 1 and house.runtime.starts == ["first"]
    (handed,) = await house.happened("instance.handed_over")
    assert handed.subject_name == "second"
    await stop(house, second)
    assert house.runtime.world.alive == []


async def test_the_former_host_comes_back_as_a_guest(house: Fake) -> None:
    first, second = await two_on_one(house)
    await stop(house, first)
    await start(house, first)
    assert house.instances.view(first.id).shares == "second"
    assert house.runtime.starts == ["first"]
    assert not house.instances.view(second.id).drift


async def test_a_host_that_is_stopped_while_it_loads_leaves_the_loading_to_its_guest(house: Fake) -> None:
    house.runtime.load_gate.hold()
    first, second = await add(house, "first"), await add(house, "second")
    starting = asyncio.create_task(start(house, first))
    await house.until("instance.loading")
    other = asyncio.create_task(start(house, second))
    await asyncio.sleep(0)
    while not house.instances.view(first.id).shared_with:
        await asyncio.sleep(0.01)
    await stop(house, first)
    with pytest.raises(StartCancelled):
        await starting
    assert (house.state(first), house.state(second)) == ("stopped", "loading")
    house.runtime.load_gate.release()
    await other
    assert house.state(second) == "running" and house.runtime.starts == ["first"]


async def test_each_has_its_own_idle_time_and_the_engine_goes_with_the_last(house: Fake) -> None:
    first, second = await add(house, "first", policy=IDLE), await add(house, "second", policy=IDLE)
    (await house.lease(first)).release()
    lease = await house.lease(second)
    await house.until("instance.stopped")
    assert (house.state(first), house.state(second)) == ("stopped", "running")
    assert len(house.runtime.world.alive) == 1
    lease.release()
    await house.until("instance.stopped", 2)
    assert house.runtime.world.alive == []


async def test_a_crash_is_said_of_both_and_both_come_back(house: Fake) -> None:
    first, second = await two_on_one(house)
    await house.runtime.exit("first")
    await house.until("instance.failed")
    lease = await house.lease(second)
    assert (house.state(first), house.state(second)) == ("running", "running")
    lease.release()
    assert house.runtime.starts == ["first", "first"]
    assert house.instances.view(second.id).shares == "first"


async def test_an_engine_that_cannot_be_started_again_is_failed_for_both(house: Fake) -> None:
    first, second = await two_on_one(house, restart_limit=0)
    await house.runtime.exit("first")
    await house.until("instance.failed")
    while house.state(second) != "failed":
        await asyncio.sleep(0.01)
    assert house.state(first) == "failed"
    assert house.instances.view(second.id).reason == house.instances.view(first.id).reason


async def test_a_start_that_fails_fails_for_all_who_wait(house: Fake) -> None:
    house.runtime.load_gate.hold()
    first, second = await add(house, "first"), await add(house, "second")
    starts = [asyncio.create_task(start(house, model)) for model in (first, second)]
    await house.until("instance.loading")
    while not (hosts := [one for one in (first, second) if house.instances.view(one.id).shared_with]):
        await asyncio.sleep(0.01)
    await house.runtime.exit(hosts[0].name, 1)
    for one in starts:
        with pytest.raises(StartFailed):
            await one
    assert {house.state(first), house.state(second)} == {"failed"}
    house.runtime.load_gate.release()
    await start(house, second)
    assert house.state(second) == "running"


async def test_an_engine_that_leaves_for_another_leaves_for_both(house: Fake) -> None:
    house.settings.change(max_running=1)
    first, second = await add(house, "first"), await add(house, "second")
    (await house.lease(first)).release()
    lease = await house.lease(second)
    other = await add(house, "other", "b")
    waiting = asyncio.create_task(house.lease(other))
    await asyncio.sleep(0.3)
    assert not waiting.done(), "a request of the guest keeps the engine"
    lease.release()
    (await waiting).release()
    assert (house.state(first), house.state(second)) == ("stopped", "stopped")
    assert [engine.spec.model_name for engine in house.runtime.world.alive] == ["other"]


async def test_both_together_take_one_place(house: Fake) -> None:
    house.settings.change(max_running=1)
    await two_on_one(house)


async def test_neither_can_be_deleted_while_it_runs(house: Fake) -> None:
    first, second = await two_on_one(house)
    for model in (first, second):
        with pytest.raises(ModelInUse):
            await house.models.delete(model.id, LOCAL_ADMIN)
    await stop(house, first)
    await house.models.delete(first.id, LOCAL_ADMIN)
    (await house.lease(second)).release()
    assert house.state(second) == "running"


async def test_a_changed_guest_gets_its_own_engine_when_the_change_is_applied(house: Fake) -> None:
    first, _ = await two_on_one(house)
    await house.models.update("second", {"options": {"context_length": 64}}, LOCAL_ADMIN)
    view = await house.instances.apply("second", LOCAL_ADMIN)
    assert (view.state, view.shares) == ("running", None)
    assert len(house.runtime.world.alive) == 2 and house.state(first) == "running"


async def test_a_changed_host_leaves_its_engine_to_the_guest(house: Fake) -> None:
    _, second = await two_on_one(house)
    await house.models.update("first", {"options": {"context_length": 64}}, LOCAL_ADMIN)
    lease = await house.lease(second)
    await house.instances.apply("first", LOCAL_ADMIN)
    lease.release()
    assert house.runtime.stops == [] and len(house.runtime.world.alive) == 2
    assert house.instances.view(second.id).shares is None and house.state(second) == "running"


async def test_a_restart_is_one_of_the_engine_for_all_who_share_it(house: Fake) -> None:
    first, second = await two_on_one(house)
    for model in (second, first):
        await house.instances.restart(model.id, LOCAL_ADMIN)
        (await house.lease(second)).release()
        assert (house.state(first), house.state(second)) == ("running", "running")
    assert house.runtime.starts == ["first"] * 3 and len(house.runtime.world.alive) == 1


async def test_stopping_everything_ends_the_engine(house: Fake) -> None:
    first, second = await two_on_one(house)
    views = await house.instances.stop_all(LOCAL_ADMIN)
    assert {view.state for view in views} == {"stopped"} and house.runtime.world.alive == []
    assert {house.state(first), house.state(second)} == {"stopped"}


async def test_after_a_restart_of_the_server_both_run_on_the_engine_that_was_handed_over(
    build: Any, house: Fake
) -> None:
    first, second = await two_on_one(house)
    third = await add(house, "third")
    await start(house, third)
    await stop(house, first)
    await house.instances.close()
    again = await build(house.runtime)
    for model in (second, third):
        (await again.lease(model)).release()
    assert (again.state(first), again.state(second)) == ("stopped", "running")
    assert again.runtime.starts == ["first"] and len(again.runtime.world.alive) == 1
    names = {again.instances.view(m.id).shares for m in (second, third)}
    assert len(names) == 2 and None in names


async def test_each_has_its_own_limit_of_requests(house: Fake) -> None:
    first = await add(house, "first", policy={"max_concurrency": 1})
    second = await add(house, "second")
    leases = [await house.lease(first), await house.lease(second), await house.lease(second)]
    waiting = asyncio.create_task(house.lease(first))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    leases[0].release()
    (await waiting).release()
    for lease in leases[1:]:
        lease.release()


async def test_a_person_who_starts_a_guest_keeps_it(house: Fake) -> None:
    first, second = await add(house, "first", policy=IDLE), await add(house, "second", policy=IDLE)
    (await house.lease(first)).release()
    (await house.lease(second)).release()
    await start(house, second)
    await house.until("instance.stopped")
    assert (house.state(first), house.state(second)) == ("stopped", "running")
    assert house.instances.view(second.id).expires_at is None


async def test_in_whatever_order_they_come_and_go_every_state_is_true(house: Fake) -> None:
    models = [await add(house, f"m{n}", policy={"idle_timeout_s": 0.05}) for n in range(4)]
    user = Principal("someone", Role.POWER_USER)

    async def come_and_go(number: int) -> None:
        for turn in range(12):
            model = models[(number + turn * 3) % 4]
            try:
                if (number + turn) % 3 == 0:
                    await house.instances.stop(model.id, user)
                elif (number + turn) % 3 == 1:
                    await house.instances.start(model.id, user)
                else:
                    lease = await house.lease(model)
                    await asyncio.sleep(0.01)
                    lease.release()
            except StartCancelled:
                continue  # another one stopped it

    async with asyncio.timeout(60):
        await asyncio.gather(*(come_and_go(number) for number in range(6)))
    for model in models:
        await stop(house, model)
    assert {house.state(model) for model in models} == {"stopped"}
    assert house.runtime.world.alive == []
