"""A change of what is launched, with the policy that it holds from the next request on."""

from __future__ import annotations

import asyncio

from ostler.core.principals import LOCAL_ADMIN
from ostler.models.records import Model, NewModel
from tests.instances.conftest import Fake

NEXT = {"apply_changes": "next_request"}


async def change(house: Fake, model: Model, context_length: int = 64) -> None:
    await house.models.update(model.id, {"options": {"context_length": context_length}}, LOCAL_ADMIN)


def context_of(house: Fake, model: Model) -> str:
    args = list(house.runtime.world.engine(model.name).spec.args)
    return args[args.index("--ctx-size") + 1] if "--ctx-size" in args else ""


async def test_the_next_request_is_answered_by_what_the_recipe_says_now(house: Fake) -> None:
    model = await house.add("a", policy=NEXT)
    (await house.lease(model)).release()
    await change(house, model)
    (await house.lease(model)).release()
    assert context_of(house, model) == "64"
    assert house.runtime.starts == ["a", "a"] and len(house.runtime.world.alive) == 1
    assert not house.instances.view(model.id).drift


async def test_a_request_in_flight_ends_on_the_engine_on_which_it_began(house: Fake) -> None:
    model = await house.add("a", policy=NEXT)
    old = await house.lease(model)
    engine = house.runtime.world.engine("a")
    await change(house, model)
    next_one = asyncio.create_task(house.lease(model))
    await house.until("instance.stopping")
    assert not engine.ended.is_set() and not next_one.done()
    old.release()
    lease = await next_one
    assert engine.ended.is_set() and lease.base_url != old.base_url
    lease.release()


async def test_a_change_that_launches_nothing_else_costs_no_restart(house: Fake) -> None:
    model = await house.add("a", policy=NEXT)
    (await house.lease(model)).release()
    await house.models.update(model.id, {"request_defaults": {"temperature": 0.5}}, LOCAL_ADMIN)
    leases = await asyncio.gather(*(house.lease(model) for _ in range(5)))
    for lease in leases:
        lease.release()
    assert house.runtime.starts == ["a"] and house.state(model) == "running"


async def test_one_that_is_kept_runs_again_by_itself(house: Fake) -> None:
    model = await house.add("a", policy=NEXT)
    await house.instances.start(model.id, LOCAL_ADMIN)
    await change(house, model)
    await house.until("instance.running", 2)
    assert context_of(house, model) == "64"


async def test_without_the_policy_the_difference_is_only_said(house: Fake) -> None:
    model = await house.add("a")
    (await house.lease(model)).release()
    await change(house, model)
    (await house.lease(model)).release()
    assert house.runtime.starts == ["a"]
    while not house.instances.view(model.id).drift:
        await asyncio.sleep(0.01)


async def test_of_two_that_share_an_engine_only_the_changed_one_gets_another(house: Fake) -> None:
    models = []
    for name in ("first", "second"):
        new = NewModel({"path": "a.gguf"}, name=name, policy=NEXT)
        models.append(await house.models.create(new, LOCAL_ADMIN))
    first, second = models
    (await house.lease(first)).release()
    stream = await house.lease(second)
    await change(house, first)
    (await house.lease(first)).release()
    assert context_of(house, first) == "64"
    assert house.state(second) == "running" and len(house.runtime.world.alive) == 2
    stream.release()
    await change(house, second)
    (await house.lease(second)).release()
    assert house.instances.view(second.id).shares == "first", "now they launch the same again"


async def test_of_many_requests_around_a_change_none_after_it_gets_the_old_engine(house: Fake) -> None:
    model = await house.add("a", policy=NEXT)
    (await house.lease(model)).release()
    for context_length in (64, 96, 128):
        await change(house, model, context_length)

        async def ask() -> str:
            lease = await house.lease(model)
            await asyncio.sleep(0)
            served = next(
                e for e in house.runtime.world.engines if e.handle and e.handle.url == lease.base_url
            )
            lease.release()
            return str(served.spec.args[list(served.spec.args).index("--ctx-size") + 1])

        assert set(await asyncio.gather(*(ask() for _ in range(20)))) == {str(context_length)}
