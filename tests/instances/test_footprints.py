"""What earlier loads took is kept, found again only for the very same launch, and used for the next."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.launch import LaunchSpec
from ostler.core.principals import LOCAL_ADMIN
from ostler.engines.base import LaunchRequest
from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.registry import Engines
from ostler.fit.devices import Device
from ostler.fit.estimated import Estimate
from ostler.fit.estimated import Need as Place
from ostler.fit.need import Need
from ostler.fit.reasons import Choice
from ostler.instances.experience import Experience
from ostler.instances.experience import Launch as KnownLaunch
from ostler.instances.footprints import Footprints, footprint_key
from ostler.instances.preparing import Preparer
from ostler.instances.tables import FootprintRow
from ostler.library.loose import inspect_loose
from ostler.models.records import Model
from tests.instances.conftest import Fake

Build = Callable[..., Awaitable[Fake]]
MB = 1_000_000
HOST = Device("cpu", "8 CPU cores", "cpu", 64 * MB, 32 * MB)
GPU = Device("cuda:0", "a GPU", "cuda", 24 * MB, 20 * MB, "580.1")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


class Launch:
    """A launch of the model `a`, of which one thing at a time is changed."""

    def __init__(self, models_dir: Path, program: Path) -> None:
        self.model, self.engine = models_dir / "a.gguf", LlamaCpp(str(program))
        self.devices = [GPU, HOST]
        self.options: dict[str, Any] = {"context_length": 512}
        self.name = "a"
        self.extra_args: tuple[str, ...] = ()
        self.env: dict[str, str] = {}

    def key(self) -> str:
        request = LaunchRequest(
            1, self.name, self.model, options=self.options, extra_args=self.extra_args, env=self.env
        )
        spec: LaunchSpec = self.engine.launch_spec(request)
        return footprint_key(spec, self.engine, inspect_loose(self.model), self.devices)


@pytest.fixture
def launch(models_dir: Path, program: Path) -> Launch:
    return Launch(models_dir, program)


def touch_model(launch: Launch) -> None:
    os.utime(launch.model, ns=(1, 1))


def grow_model(launch: Launch) -> None:
    state = launch.model.stat()
    launch.model.write_bytes(launch.model.read_bytes() + b"\0")
    os.utime(launch.model, ns=(state.st_atime_ns, state.st_mtime_ns))


def new_program(launch: Launch) -> None:
    program = launch.model.parents[1] / "llama-server"
    program.write_text("#!/bin/sh\n# a newer build\n")


def longer(launch: Launch) -> None:
    launch.options["context_length"] = 1024


def adapter(launch: Launch) -> None:
    launch.options["lora"] = ["/no/such/adapter.gguf"]


def further_argument(launch: Launch) -> None:
    launch.extra_args = ("--some-new-flag",)


def environment(launch: Launch) -> None:
    launch.env = {"GGML_CUDA_FORCE_MMQ": "1"}


def new_driver(launch: Launch) -> None:
    launch.devices = [replace(GPU, driver="590.2"), HOST]


def less_memory(launch: Launch) -> None:
    launch.devices = [GPU, replace(HOST, total_bytes=HOST.total_bytes // 2)]


def no_gpu(launch: Launch) -> None:
    launch.devices = [HOST]


@pytest.mark.parametrize(
    "change",
    [
        touch_model,
        grow_model,
        new_program,
        longer,
        adapter,
        further_argument,
        environment,
        new_driver,
        less_memory,
        no_gpu,
    ],
)
def test_what_could_change_the_memory_makes_another_footprint(
    launch: Launch, change: Callable[[Launch], None]
) -> None:
    before = launch.key()
    change(launch)
    assert launch.key() != before


def test_what_cannot_change_the_memory_does_not(launch: Launch) -> None:
    before = launch.key()
    launch.name = "another name of it"
    launch.options |= {"temperature": 0.3, "verbosity": 5, "timeout": 10}
    launch.devices = [replace(GPU, free_bytes=1), replace(HOST, free_bytes=2)]
    assert launch.key() == before


def test_a_file_that_the_hubs_cache_names_by_its_digest_is_the_same_after_another_download(
    launch: Launch,
) -> None:
    blob = launch.model.parents[1] / "blobs" / ("0f" * 32)
    blob.parent.mkdir()
    launch.model.rename(blob)
    launch.model.symlink_to(blob)
    before = launch.key()
    os.utime(blob, ns=(1, 1))
    assert launch.key() == before
    launch.model.unlink()
    launch.model.symlink_to(blob.rename(blob.with_name("1e" * 32)))
    assert launch.key() != before


async def test_a_peak_never_becomes_smaller_and_only_the_last_loads_are_kept(database: Database) -> None:
    kept = Footprints(database, Clock(), "here")
    for number in range(8):
        await kept.record(
            "k",
            {"cpu": 100 - number, "cuda:0": number},
            engine="llamacpp",
            files_bytes=9,
            load_s=float(number),
        )
    await kept.record("k", {"cpu": 300}, engine="llamacpp", files_bytes=9, has_served=True)
    found = await kept.lookup("k")
    assert found is not None
    assert found.measured == {"cpu": 300, "cuda:0": 7} and found.has_served
    assert found.load_seconds == (7.0, 6.0, 5.0, 4.0, 3.0) and found.expected_load_s == 5.0
    assert await Footprints(database, Clock(), "another node").lookup("k") is None


async def test_those_not_seen_for_longest_are_forgotten(database: Database) -> None:
    kept = Footprints(database, Clock(), "here", max_kept=3)
    for key in ("a", "b", "c", "a", "d"):
        await kept.record(key, {"cpu": 1}, engine="llamacpp", files_bytes=1, load_s=1.0)
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(FootprintRow)) == 3
    assert await kept.lookup("b") is None
    assert all([await kept.lookup(key) for key in "acd"])


async def test_how_long_a_new_model_takes_is_told_by_loads_of_about_its_size_only(database: Database) -> None:
    kept = Footprints(database, Clock(), "here")
    assert await kept.expected_load_s("llamacpp", 1000) is None
    await kept.record("tiny", {}, engine="llamacpp", files_bytes=1, load_s=0.5)
    assert await kept.expected_load_s("llamacpp", 1000) is None
    await kept.record("half", {}, engine="llamacpp", files_bytes=500, load_s=5.0)
    await kept.record("double", {}, engine="llamacpp", files_bytes=2000, load_s=20.0)
    assert await kept.expected_load_s("llamacpp", 1000) == pytest.approx(10.0)
    assert await kept.expected_load_s("vllm", 1000) is None, "another engine takes another time"


async def test_a_load_is_measured_and_the_next_start_is_planned_with_it(house: Fake) -> None:
    house.runtime.memory_bytes = 50 * MB
    model = await house.add("a")
    before = await house.instances.memory_of(model)
    assert before is not None and before["exactness"] == "estimated"
    assert before["devices"][0]["measured_bytes"] is None and before["load_seconds"] == []

    await house.instances.start("a", LOCAL_ADMIN)
    house.runtime.memory_bytes = 70 * MB
    (await house.lease(model)).release()
    await house.instances.stop("a", LOCAL_ADMIN)

    report = await house.instances.memory_of(model)
    assert report is not None
    (cpu,) = report["devices"]
    assert report["exactness"] == "measured" and report["has_served"] and len(report["load_seconds"]) == 1
    assert (cpu["planned_bytes"], cpu["measured_bytes"]) == (70 * MB, 70 * MB)
    assert cpu["estimated_bytes"] == before["devices"][0]["estimated_bytes"]
    assert cpu["error"] == pytest.approx(cpu["estimated_bytes"] / (70 * MB) - 1, abs=1e-3)
    run = await house.instances.dry_run("a")
    assert run.fit is not None and run.fit[0]["need_bytes"] == 70 * MB
    assert [run.expected_load_s] == report["load_seconds"]

    await house.models.update("a", {"options": {"context_length": 256}}, LOCAL_ADMIN)
    changed = await house.instances.memory_of(house.models.get("a"))
    assert changed is not None and changed["exactness"] == "estimated"


async def test_a_start_with_an_ignored_error_is_measured_like_any_other(house: Fake) -> None:
    model = await house.add("a", options={"kv_cache_type": "q8_0", "flash_attention": "off"})
    await house.instances.start("a", LOCAL_ADMIN, ignore=["v_cache_needs_flash_attention"])
    await house.instances.stop("a", LOCAL_ADMIN)
    report = await house.instances.memory_of(model)
    assert report is not None and len(report["load_seconds"]) == 1


async def test_a_start_is_planned_with_what_the_engine_said_but_never_waits_for_it(house: Fake) -> None:
    model = await house.add("a", options={"context_length": 512})
    experience, unknown = house.instances.experience, Need({"cpu": 1})
    assert (await experience.better_need(unknown, model)).exactness == "estimated"
    estimate = Estimate(512, 1, (), Place("cpu", "host", 2 * MB, 1, 1, 0, None), None)
    asked = await experience.better_estimate(estimate, model, ask=True)
    assert asked.exactness == "engine" and asked.host.total_bytes > estimate.host.total_bytes
    need = await experience.better_need(unknown, model)
    assert need.exactness == "engine" and need.by_device["cpu"] > 2 * MB


async def test_what_is_shown_as_measured_is_what_it_holds_now(house: Fake) -> None:
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    house.runtime.memory_bytes = 70 * MB
    async with asyncio.timeout(20):
        while house.instances.view(model.id).memory_bytes != 70 * MB:
            await asyncio.sleep(0.01)


async def test_less_than_what_the_engine_may_still_take_is_never_planned(house: Fake) -> None:
    house.runtime.memory_bytes = 1 * MB
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    await house.instances.stop("a", LOCAL_ADMIN)
    report = await house.instances.memory_of(model)
    assert report is not None and report["exactness"] == "estimated"
    (cpu,) = report["devices"]
    assert cpu["planned_bytes"] == cpu["estimated_bytes"] > cpu["measured_bytes"] == MB


async def test_what_ran_here_says_nothing_of_devices_that_are_only_described(build: Build) -> None:
    house = await build(settings={"devices": "cpu:1GiB"})
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    await house.instances.stop("a", LOCAL_ADMIN)
    report = await house.instances.memory_of(model)
    assert report is not None and report["load_seconds"] == []
    assert report["devices"][0]["measured_bytes"] is None


async def test_a_gpu_whose_driver_hides_what_others_hold_leaves_no_nonsense(
    database: Database, house: Fake
) -> None:
    kept = Footprints(database, Clock(), "here")

    async def look() -> None:
        experience.see({1: {"cuda:0": 100, "cuda:1": 1100, "cpu": 20}})

    async def choose(model: Model, overrides: Mapping[str, Any] | None) -> Choice:
        return Choice()

    preparer = Preparer(house.models, Engines([]), {}, choose, lambda: [HOST])
    experience = Experience(kept, house.models, preparer, lambda: [HOST], look, lambda: 0.0)
    need = Need({"cuda:0": 1500, "cuda:1": 1500, "cpu": 30}, overhead={"cuda:0": 500, "cuda:1": 500})
    experience.note_ready(1, KnownLaunch("k", "llamacpp", 9), need, 1.0)
    await experience.note_leaving(1, has_served=True)
    found = await kept.lookup("k")
    assert found is not None and found.measured == {"cuda:1": 1100, "cpu": 20}


async def test_an_engine_that_fails_leaves_its_load_seconds_and_no_nonsense(house: Fake) -> None:
    house.settings.change(restart_limit=0)
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    await house.runtime.exit("a", 1)
    await house.until("instance.failed")
    report = await house.instances.memory_of(model)
    assert report is not None and len(report["load_seconds"]) == 1
    assert report["devices"][0]["measured_bytes"] in (None, MB)
