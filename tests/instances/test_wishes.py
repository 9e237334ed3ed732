"""What a person wants of a model, and what becomes of it when the model does not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import DesiredState
from ostler.instances.errors import NoRoom, StartBlocked, WillNotFit
from ostler.models.records import FITS_NOT
from ostler.models.sources import ModelFileGone
from tests.instances.conftest import Fake
from tests.runtimes.fake import FakeRuntime

Build = Callable[..., Awaitable[Fake]]
TIGHT = {"devices": "cpu:10MiB", "device_reserve": "0"}
LARGE = {"context_length": 8192}
REFUSED = {"kv_cache_type": "q8_0", "flash_attention": "off"}
REFUSED_FOR = "v_cache_needs_flash_attention"


@pytest.fixture
async def tight(build: Build) -> Fake:
    """A server whose pretended host holds one demo model and not two."""
    return await build(settings=TIGHT)


async def test_start_it_all_the_same_holds_over_a_restart_of_the_server(build: Build) -> None:
    first = await build(settings=TIGHT)
    await first.add("a", options=LARGE)
    await first.instances.start("a", LOCAL_ADMIN, ignore=[FITS_NOT])
    await first.instances.close()
    await first.runtime.world.close()
    second = await build(FakeRuntime(), settings=TIGHT)
    await second.until("instance.running", 2)
    assert second.runtime.starts == ["a"] and second.models.get("a").ignored

    await second.models.update("a", {"description": "changed"}, LOCAL_ADMIN)
    assert second.models.get("a").ignored, "a change of the recipe does not take it back"
    await second.instances.stop("a", LOCAL_ADMIN)
    with pytest.raises(WillNotFit):
        await second.instances.start("a", LOCAL_ADMIN)


async def test_an_ignored_error_stays_ignored_over_a_restart_of_the_server(build: Build) -> None:
    first = await build()
    await first.add("a", options=REFUSED)
    await first.instances.start("a", LOCAL_ADMIN, ignore=[REFUSED_FOR])
    await first.instances.close()
    await first.runtime.world.close()
    second = await build(FakeRuntime())
    await second.until("instance.running", 2)
    assert second.runtime.starts == ["a"]

    await second.instances.stop("a", LOCAL_ADMIN)
    with pytest.raises(StartBlocked):
        await second.instances.start("a", LOCAL_ADMIN)


async def test_an_engine_with_an_ignored_error_is_not_taken_for_changed(build: Build) -> None:
    house = await build()
    model = await house.add("a", options=REFUSED)
    await house.instances.start("a", LOCAL_ADMIN, ignore=[REFUSED_FOR])
    await house.models.update("a", {"description": "changed"}, LOCAL_ADMIN)
    view = await house.instances.apply("a", LOCAL_ADMIN)
    assert not view.drift and house.runtime.starts == ["a"] and house.state(model) == "running"


async def test_start_it_all_the_same_reaches_a_start_that_waits_already(tight: Fake) -> None:
    holder, _ = [await tight.add(name) for name in "ab"]
    stream = await tight.lease(holder)
    waiting = asyncio.create_task(tight.instances.start("b", LOCAL_ADMIN))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await tight.instances.start("b", LOCAL_ADMIN, ignore=[FITS_NOT])
    assert (await waiting).state == "running" and tight.state(holder) == "running"
    stream.release()


async def test_started_again_without_it_the_fit_counts_again(tight: Fake) -> None:
    holder, model = [await tight.add(name) for name in "ab"]
    await tight.instances.start("b", LOCAL_ADMIN, ignore=[FITS_NOT])
    await tight.instances.start("b", LOCAL_ADMIN)
    assert not tight.models.get("b").ignored
    await tight.models.update("b", {"options": LARGE}, LOCAL_ADMIN)
    with pytest.raises(WillNotFit):
        await tight.instances.apply("b", LOCAL_ADMIN)
    assert (tight.state(holder), tight.state(model)) == ("stopped", "failed")


async def test_a_refused_start_leaves_no_wish_to_the_next_server(build: Build) -> None:
    first = await build(settings=TIGHT)
    await first.add("a", options=LARGE)
    with pytest.raises(WillNotFit):
        await first.instances.start("a", LOCAL_ADMIN)
    pinned = await first.add("b", policy={"pinned": True})
    await first.instances.start("b", LOCAL_ADMIN)
    await first.add("c")
    with pytest.raises(NoRoom):
        await first.instances.start("c", LOCAL_ADMIN)
    wishes = {m.name: m.desired_state for m in first.models.all()}
    assert wishes == {
        "a": DesiredState.STOPPED,
        "b": DesiredState.RUNNING,
        "c": DesiredState.STOPPED,
    }
    await first.instances.close()
    second = await build(FakeRuntime(first.runtime.world), settings=TIGHT)
    assert second.state(pinned) == "running"
    assert len(await second.happened("instance.refused")) == 2, "those of the first server"


async def test_a_model_that_should_run_and_no_longer_fits_says_so_and_starts_when_it_fits_again(
    build: Build,
) -> None:
    first = await build()
    await first.add("a", options=LARGE)
    await first.instances.start("a", LOCAL_ADMIN)
    await first.instances.close()
    await first.runtime.world.close()

    smaller = await build(FakeRuntime(), settings=TIGHT)
    await smaller.until("instance.refused")
    view = smaller.instances.view(smaller.models.get("a").id)
    while view.state != "failed":  # the event is told before the start is over
        await asyncio.sleep(0)
        view = smaller.instances.view(view.model_id)
    assert "which has 10 MiB in all" in str(view.reason) and "starts when there is room" in str(view.reason)
    assert smaller.models.get("a").desired_state is DesiredState.RUNNING
    await smaller.models.update("a", {"options": {"context_length": 512}}, LOCAL_ADMIN)
    await smaller.until("instance.running", 2)
    assert smaller.runtime.starts == ["a"]


async def test_a_model_that_should_run_waits_for_room_and_pushes_nobody_out(build: Build) -> None:
    first = await build()
    await first.add("a")
    await first.instances.start("a", LOCAL_ADMIN)
    await first.add("b", policy={"priority": 5})
    await first.instances.start("b", LOCAL_ADMIN)
    await first.instances.close()
    await first.runtime.world.close()

    one_fits = await build(FakeRuntime(), settings=TIGHT)
    refused = await one_fits.until("instance.refused")
    assert refused.subject_name == "a" and one_fits.runtime.starts == ["b"]
    await one_fits.until("instance.running", 3)
    await one_fits.instances.stop("b", LOCAL_ADMIN)
    await one_fits.until("instance.running", 4)
    assert one_fits.runtime.starts == ["b", "a"]
    assert len(await one_fits.happened("instance.refused")) == 1, "it was not tried in vain"
    await one_fits.instances.stop("a", LOCAL_ADMIN)
    assert one_fits.instances.view(one_fits.models.get("a").id).state == "stopped"


async def test_a_start_that_awaits_its_files_goes_on_when_they_are_here_even_at_the_next_server(
    build: Build, models_dir: Path
) -> None:
    first = await build()
    model = await first.add("a")
    aside = (models_dir / "a.gguf").rename(models_dir.parent / "a.aside")
    await first.instances.start("a", LOCAL_ADMIN, wait=False, awaits_files=True)
    await first.until("instance.refused")
    while first.instances.view(model.id).state == "starting":
        await asyncio.sleep(0)
    view = first.instances.view(model.id)
    assert view.state == "stopped" and str(view.reason).endswith("; starts when they are")
    await first.instances.close()

    second = await build(FakeRuntime(first.runtime.world))
    await second.until("instance.refused", 2)
    assert second.runtime.starts == [] and second.state(model) == "stopped"
    aside.rename(models_dir / "a.gguf")
    await second.until("instance.running")
    assert second.runtime.starts == ["a"]


async def test_a_start_that_awaits_its_files_can_be_taken_back(build: Build, models_dir: Path) -> None:
    house = await build()
    model = await house.add("a")
    aside = (models_dir / "a.gguf").rename(models_dir.parent / "a.aside")
    await house.instances.start("a", LOCAL_ADMIN, wait=False, awaits_files=True)
    await house.until("instance.refused")
    view = await house.instances.stop("a", LOCAL_ADMIN)
    assert (view.state, view.reason) == ("stopped", None)
    assert house.models.get("a").desired_state is DesiredState.STOPPED
    aside.rename(models_dir / "a.gguf")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await house.until("instance.starting")
    assert house.runtime.starts == [] and house.state(model) == "stopped"


async def test_a_plain_start_without_files_is_over(build: Build, models_dir: Path) -> None:
    house = await build()
    await house.add("a")
    (models_dir / "a.gguf").unlink()
    with pytest.raises(ModelFileGone):
        await house.instances.start("a", LOCAL_ADMIN)
    assert house.models.get("a").desired_state is DesiredState.STOPPED
