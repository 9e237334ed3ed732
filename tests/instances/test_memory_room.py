"""Room by memory, carried out: who leaves, who waits, who is refused before anything is started."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

import pytest

from ostler.core.errors import Kind
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.sizes import size_text
from ostler.fit.devices import Device, Devices, Sight
from ostler.fit.model_shape import ModelShape
from ostler.fit.pretend import pretended
from ostler.instances.errors import NoRoom, WillNotFit
from ostler.library.gguf import read_gguf_header
from ostler.models.records import FITS_NOT
from tests.fit.estimates import estimate
from tests.instances.conftest import Fake
from tests.library.gguf_files import model_metadata, write_model
from tests.runtimes.fake import FakeRuntime

Build = Callable[..., Awaitable[Fake]]
DEMO = ModelShape.of(
    [read_gguf_header(Path(str(resources.files("ostler") / "data" / "ostler-demo-Q8_0.gguf")))]
)
NEED_BYTES = estimate(DEMO, {}, pretended("cpu:10MiB")).host.total_bytes
"""What the demo model needs at its own context length."""
ONE_FITS = {"devices": "cpu:10MiB", "device_reserve": "0"}


@pytest.fixture
async def tight(build: Build) -> Fake:
    """A server whose pretended host holds one demo model and not two."""
    return await build(settings=ONE_FITS)


async def test_an_idle_model_leaves_for_one_that_needs_its_memory(tight: Fake) -> None:
    a, b = [await tight.add(name) for name in "ab"]
    (await tight.lease(a)).release()
    (await tight.lease(b)).release()
    assert (tight.state(a), tight.state(b)) == ("stopped", "running")
    (evicted,) = await tight.happened("instance.evicted")
    assert (evicted.subject_name, evicted.data["for"]) == ("a", "b")


async def test_a_model_that_is_larger_than_the_machine_is_refused_before_anything_starts(tight: Fake) -> None:
    model = await tight.add("a", options={"context_length": 8192})
    with pytest.raises(
        WillNotFit, match=r"a does not fit: it needs [23][0-9] MiB on cpu, which has 10 MiB"
    ) as e:
        await tight.instances.start("a", LOCAL_ADMIN)
    assert e.value.kind is Kind.DOES_NOT_FIT
    assert e.value.facts["devices"][0]["need_bytes"] > 2 * e.value.facts["devices"][0]["total_bytes"]
    assert tight.runtime.starts == [] and tight.state(model) == "failed"
    (refused,) = await tight.happened("instance.refused")
    assert refused.data["code"] == "will_not_fit"

    fitting = e.value.facts["context_length_that_fits"]
    assert f"context_length={fitting}" in (e.value.hint or "")
    await tight.models.update("a", {"options": {"context_length": fitting}}, LOCAL_ADMIN)
    await tight.instances.start("a", LOCAL_ADMIN)
    assert tight.state(model) == "running"


async def test_a_person_can_start_it_all_the_same(tight: Fake) -> None:
    large = await tight.add("a", options={"context_length": 8192})
    other = await tight.add("b")
    await tight.instances.start("a", LOCAL_ADMIN, ignore=[FITS_NOT])
    assert tight.state(large) == "running"
    (cpu,) = [account for _, account in await tight.instances.devices()]
    assert cpu.available_bytes == 0 and cpu.promised_bytes > cpu.total_bytes
    await tight.models.update("a", {"policy": {"pinned": True}}, LOCAL_ADMIN)
    with pytest.raises(NoRoom, match=r"held: a [23][0-9] MiB \(may not leave\)"):
        await tight.lease(other)
    await tight.runtime.exit("a", 1)
    await tight.until("instance.running", 2)
    assert tight.runtime.starts == ["a", "a"], "what a person decided holds after a fault"
    await tight.instances.stop("a", LOCAL_ADMIN)
    with pytest.raises(WillNotFit):
        await tight.lease(large)


async def test_one_that_serves_is_never_cut_but_told_to_finish_after_its_turn(tight: Fake) -> None:
    tight.settings.change(swap_after_s=0.2, drain_timeout_s=0.01)
    a, b = [await tight.add(name) for name in "ab"]
    stream = await tight.lease(a)
    wanted = asyncio.create_task(tight.lease(b))
    await tight.until("instance.evicted")
    again = asyncio.create_task(tight.lease(a))
    await asyncio.sleep(0.2)
    assert (tight.state(a), tight.runtime.stops) == ("stopping", []), "its stream goes on"
    stream.release()
    (await wanted).release()
    (await again).release()
    assert tight.runtime.starts == ["a", "b", "a"]
    assert not any(e.data["cut_requests"] for e in await tight.happened("instance.stopped"))


async def test_a_dry_run_shows_the_fit_and_who_would_leave_and_why(tight: Fake) -> None:
    a, _ = [await tight.add(name) for name in "ab"]
    (await tight.lease(a)).release()
    run = await tight.instances.dry_run("b")
    assert run.would_stop == ("a",) and run.fits is True and run.fit is not None
    (cpu,) = run.fit
    assert cpu["need_bytes"] == NEED_BYTES and not cpu["fits"]
    (eviction,) = run.evictions
    assert eviction["model"] == "a" and eviction["frees"] == {"cpu": NEED_BYTES}
    assert eviction["reason"].startswith("idle for ")
    assert f" s; it needs {size_text(NEED_BYTES)} on cpu" in eviction["reason"]
    large = await tight.instances.dry_run("b", {"context_length": 8192})
    assert (large.fits, large.has("does_not_fit")) == (False, True)
    assert "does not fit" in large.errors[0] and tight.runtime.starts == ["a"]


async def test_a_model_whose_files_do_not_say_enough_is_started_and_the_dry_run_warns(
    tight: Fake, models_dir: Path
) -> None:
    write_model(
        models_dir / "d.gguf",
        metadata=model_metadata(llama__attention__head_count=None, llama__attention__head_count_kv=None),
    )
    model = await tight.add("d")
    run = await tight.instances.dry_run("d")
    assert (run.fits, run.fit) == (None, None)
    assert "whether it fits is not known: the header has no llama.attention.head_count" in run.warnings[-1]
    (await tight.lease(model)).release()
    assert tight.state(model) == "running"


class SlowDevices(Devices):
    """A host whose memory comes back when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 0
        self.looks = 0

    async def look(self) -> Sight:
        self.looks += 1
        total = 300_000_000
        return Sight([Device("cpu", "slow host", "cpu", total, total - self.used)], {})


async def test_a_start_waits_until_the_memory_of_the_one_that_left_is_really_back(build: Build) -> None:
    devices = SlowDevices()
    house = await build(settings={"device_reserve": "0"}, devices=devices)
    a = await house.add("a", options={"context_length": 75_000})
    b = await house.add("b", options={"context_length": 75_000})
    devices.used = 1_000_000  # as the engine is measured by the fake runtime
    (await house.lease(a)).release()
    house.runtime.stop_gate.hold()
    wanted = asyncio.create_task(house.lease(b))
    await house.runtime.stop_gate.asked.wait()
    devices.used = 150_000_000  # the driver still counts it as used
    house.runtime.stop_gate.release()
    await house.until("instance.stopped")
    looks = devices.looks
    while devices.looks < looks + 3:
        await asyncio.sleep(0.05)
    assert not wanted.done() and house.runtime.starts == ["a"]
    devices.used = 0
    (await wanted).release()


async def test_memory_that_does_not_come_back_is_a_refusal_that_names_the_holder(build: Build) -> None:
    devices = SlowDevices()
    house = await build(settings={"device_reserve": "0", "memory_return_s": 0.3}, devices=devices)
    devices.used = 150_000_000
    model = await house.add("a", options={"context_length": 75_000})
    with pytest.raises(NoRoom, match=r"it needs 2[0-9][0-9] MiB on cpu.*held: other programs 143 MiB") as e:
        await house.lease(model)
    assert e.value.hint is not None and e.value.hint.startswith("It would fit now with the option context_")
    assert e.value.facts["context_length_that_fits"] == 37_500
    assert house.runtime.starts == []


async def test_an_adopted_engine_s_need_is_in_the_ledger(build: Build) -> None:
    first = await build(settings=ONE_FITS)
    await first.add("a")
    await first.instances.start("a", LOCAL_ADMIN)
    second = await build(FakeRuntime(first.runtime.world), settings=ONE_FITS)
    (cpu,) = [account for _, account in await second.instances.devices()]
    assert cpu.promised_bytes == NEED_BYTES


async def test_the_queue_is_kept_by_priority_and_by_waiting(tight: Fake) -> None:
    low, high, first = [await tight.add(n, policy={"priority": p}) for n, p in (("a", 0), ("b", 1), ("c", 0))]
    stream = await tight.lease(first)
    waiting = [asyncio.create_task(tight.lease(m)) for m in (low, high)]
    await asyncio.sleep(0.1)
    stream.release()
    for task in waiting:
        task.add_done_callback(lambda t: t.result().release())
    await asyncio.gather(*waiting)
    assert tight.runtime.starts == ["c", "b", "a"]


class OneGpu(Devices):
    """A host with a GPU that the driver shows."""

    async def look(self) -> Sight:
        gpu, host = (
            Device("cuda:0", "a GPU", "cuda", 2**34, 2**34),
            Device("cpu", "host", "cpu", 2**30, 2**30),
        )
        return Sight([gpu, host], {})


async def test_an_engine_for_the_cpu_is_counted_on_the_host_also_where_there_is_a_gpu(
    build: Build, tmp_path: Path
) -> None:
    house = await build(devices=OneGpu())
    await house.add("a")
    run = await house.instances.dry_run("a")
    assert {device["id"]: device["need_bytes"] > 0 for device in run.fit or ()} == {
        "cuda:0": False,
        "cpu": True,
    }
    assert "llamacpp sees no GPU here: the model runs on the CPU" in run.warnings
    program = tmp_path / "llama-server"
    program.write_text(
        "#!/bin/sh\necho 'Available devices:'; echo '  CUDA0: a GPU (16384 MiB, 16000 MiB free)'\n"
    )
    program.chmod(0o755)
    await house.models.update("a", {"engine_command": str(program)}, LOCAL_ADMIN)
    run = await house.instances.dry_run("a")
    assert {device["id"]: device["need_bytes"] > 0 for device in run.fit or ()}["cuda:0"] is True
