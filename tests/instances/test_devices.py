"""On which GPUs models run: those that their policy allows, one where one is enough, and it stays so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ostler.core.errors import InvalidField
from ostler.core.principals import LOCAL_ADMIN
from ostler.fit.devices import Device, Devices, Sight
from ostler.instances.errors import WillNotFit
from ostler.instances.seating import DevicesGone
from tests.instances.conftest import Fake
from tests.library.gguf_files import Tensor, model_metadata, model_tensors, write_gguf
from tests.runtimes.fake import FakeRuntime

Build = Callable[..., Awaitable[Fake]]
TWO_GPUS = {"devices": "2x592MiB+8GiB host", "device_reserve": "0", "max_running": 0}
"""Each GPU holds one demo model (some 557 MiB of overhead are counted), and not two."""
LARGE = {"context_length": 16384, "gpu_layers": 99, "batch_size": 64, "ubatch_size": 64}
"""More than one of them holds, and less than both."""


@pytest.fixture
async def two(build: Build) -> Fake:
    return await build(settings=TWO_GPUS)


def devices_of(house: Fake, name: str) -> tuple[str, ...]:
    return house.instances.view(house.models.get(name).id).devices


async def use(house: Fake, name: str) -> None:
    (await house.lease(house.models.get(name))).release()


async def test_a_model_that_one_gpu_holds_gets_one_and_the_next_the_other(two: Fake) -> None:
    for name in "ab":
        await two.add(name)
        await use(two, name)
    assert (devices_of(two, "a"), devices_of(two, "b")) == (("cuda:0",), ("cuda:1",))
    engine = two.runtime.world.engine("b")
    assert engine.spec.env["CUDA_VISIBLE_DEVICES"] == "1"
    assert await two.happened("instance.evicted") == []


async def test_the_gpu_is_taken_from_which_the_cheapest_model_has_to_leave(two: Fake) -> None:
    await two.add("a", policy={"priority": 1})
    await two.add("b")
    await two.add("c")
    for name in "abc":
        await use(two, name)
    assert [e.subject_name for e in await two.happened("instance.evicted")] == ["b"]
    assert devices_of(two, "c") == ("cuda:1",)


async def test_the_gpu_with_the_most_room_is_taken(build: Build) -> None:
    house = await build(settings={**TWO_GPUS, "devices": "1x645MiB+1x945MiB+8GiB host"})
    await house.add("a")
    await use(house, "a")
    assert devices_of(house, "a") == ("cuda:1",)


async def test_a_model_that_no_gpu_holds_alone_is_spread_over_all(two: Fake) -> None:
    await two.add("a", options=LARGE)
    run = await two.instances.dry_run("a")
    assert run.devices == () and run.fit is not None
    assert [d["id"] for d in run.fit if d["need_bytes"] > 512 * 2**20] == ["cuda:0", "cuda:1"]
    await use(two, "a")
    assert devices_of(two, "a") == ()
    assert "CUDA_VISIBLE_DEVICES" not in two.runtime.world.engine("a").spec.env


async def test_a_dry_run_shows_the_gpu_that_would_be_taken(two: Fake) -> None:
    await two.add("a")
    await two.add("b")
    await use(two, "a")
    run = await two.instances.dry_run("b")
    assert (run.devices, run.env["CUDA_VISIBLE_DEVICES"]) == (("cuda:1",), "1")
    assert run.spec is not None and tuple(run.spec["devices"]) == ("cuda:1",)
    assert {d["id"] for d in run.fit or () if d["need_bytes"]} == {"cuda:1", "cpu"}


async def test_the_policy_limits_a_model_to_its_devices(two: Fake) -> None:
    await two.add("a", policy={"devices": ["cuda:1"]})
    await two.add("b", policy={"devices": ["cuda:1"]})
    await use(two, "a")
    await use(two, "b")
    assert devices_of(two, "b") == ("cuda:1",)
    assert [e.subject_name for e in await two.happened("instance.evicted")] == ["a"], "cuda:0 was free"
    with pytest.raises(WillNotFit, match="on cuda:1, which has 592 MiB"):
        await two.instances.start("a", LOCAL_ADMIN, overrides={**LARGE, "context_length": 65_536})


async def test_of_the_devices_of_a_policy_the_best_liked_is_taken_while_it_has_room(two: Fake) -> None:
    for name in "ab":
        await two.add(name, policy={"devices": ["cuda:1", "cuda:0"]})
        await use(two, name)
    assert (devices_of(two, "a"), devices_of(two, "b")) == (("cuda:1",), ("cuda:0",))


async def test_a_model_may_be_kept_off_the_gpus(two: Fake) -> None:
    await two.add("a", policy={"devices": ["cpu"]})
    run = await two.instances.dry_run("a")
    assert {d["id"] for d in run.fit or () if d["need_bytes"]} == {"cpu"}
    await use(two, "a")
    assert two.runtime.world.engine("a").spec.env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("options", [{"main_gpu": 0}, {"tensor_split": [1, 1]}, {"split_mode": "layer"}])
async def test_what_a_person_chose_with_engine_options_is_left_alone(
    two: Fake, options: dict[str, Any]
) -> None:
    await two.add("a", options=options)
    await use(two, "a")
    assert devices_of(two, "a") == ()


async def test_a_device_that_is_not_here_is_a_warning_and_none_at_all_a_refusal(two: Fake) -> None:
    await two.add("a", policy={"devices": ["cuda:7", "cuda:1"]})
    run = await two.instances.dry_run("a")
    assert "policy.devices names cuda:7, not there now" in run.warnings and run.devices == ("cuda:1",)
    await use(two, "a")
    assert devices_of(two, "a") == ("cuda:1",)
    await two.add("b", policy={"devices": ["cuda:7"]})
    run = await two.instances.dry_run("b")
    assert run.fits is False and run.errors[0].startswith("b may only use cuda:7, and none of them is here")
    with pytest.raises(DevicesGone, match=r"b may only use cuda:7") as caught:
        await two.instances.start("b", LOCAL_ADMIN)
    assert "Here are: cuda:0, cuda:1, cpu" in str(caught.value.hint)


async def test_devices_that_can_only_be_a_mistake_are_refused_when_they_are_set(two: Fake) -> None:
    wrong: list[Any] = ["cuda:0", ["GPU 0"], [0], ["cuda:0", "cuda:0"], ["cpu", "cuda:0"]]
    for devices in wrong:
        with pytest.raises(InvalidField, match=r"policy\.devices"):
            await two.add("a", policy={"devices": devices})
    for other in ({"options": {"devices": ["CUDA0"]}}, {"env": {"CUDA_VISIBLE_DEVICES": "0"}}):
        with pytest.raises(InvalidField, match="both say which devices"):
            await two.add("a", policy={"devices": ["cuda:1"]}, **other)


async def test_a_refusal_says_which_set_options_would_fit_if_they_were_left_open(
    build: Build, models_dir: Path
) -> None:
    huge = [Tensor(f"blk.{n}.ffn_up.weight", (256, 2**22)) for n in range(2)]
    others = [tensor for tensor in model_tensors() if not tensor.name.endswith("ffn_up.weight")]
    write_gguf(models_dir / "a.gguf", model_metadata(), [*others, *huge])
    house = await build(settings={**TWO_GPUS, "devices": "3GiB+32GiB host"})
    await house.add("a", options={"gpu_layers": 99})
    run = await house.instances.dry_run("a")
    assert "ostler set a gpu_layers=" in str(run.findings[0].fix)
    with pytest.raises(WillNotFit) as caught:
        await use(house, "a")
    assert caught.value.facts["leave_open"] == ["gpu_layers"]
    assert "Left open, this is chosen to fit: ostler set a gpu_layers= " in str(caught.value.hint)
    await house.models.update("a", {"options": {"gpu_layers": None}}, LOCAL_ADMIN)
    await use(house, "a")
    assert house.state(house.models.get("a")) == "running"


class ChangingGpus(Devices):
    """Two GPUs of which other programs take memory as a test says."""

    taken: tuple[int, int] = (0, 0)

    async def look(self) -> Sight:
        total = 585 * 2**20
        gpus = [
            Device(f"cuda:{n}", "a GPU", "cuda", total, total - taken, is_real=False)
            for n, taken in enumerate(self.taken)
        ]
        host = Device("cpu", "host", "cpu", 2**33, 2**33, is_real=False)
        return Sight([*gpus, host], {})


async def test_the_chosen_gpu_stays_and_is_no_drift_when_free_memory_changes(build: Build) -> None:
    devices = ChangingGpus()
    house = await build(devices=devices, settings={"device_reserve": "0"})
    model = await house.add("a")
    await use(house, "a")
    assert devices_of(house, "a") == ("cuda:0",)
    devices.taken = (100 * 2**20, 0)
    await house.instances.apply("a", LOCAL_ADMIN)
    view = house.instances.view(model.id)
    assert (view.drift, view.devices, house.runtime.starts) == (False, ("cuda:0",), ["a"])

    again = await build(FakeRuntime(house.runtime.world), devices=devices, settings={"device_reserve": "0"})
    accounts = {device.id: account for device, account in await again.instances.devices()}
    assert accounts["cuda:0"].promised_bytes > 0 and accounts["cuda:1"].promised_bytes == 0
    await again.instances.apply("a", LOCAL_ADMIN)
    assert not again.instances.view(model.id).drift and again.runtime.starts == []

    await again.models.update("a", {"policy": {"devices": ["cuda:1"]}}, LOCAL_ADMIN)
    await again.instances.apply("a", LOCAL_ADMIN)
    assert devices_of(again, "a") == ("cuda:1",), "what the policy does not allow any more is drift"
