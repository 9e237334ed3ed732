"""What is left open is chosen at a start, shown beforehand, and never changed once it is set."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.fit.devices import Device, Devices, Sight
from tests.instances.conftest import Fake
from tests.library.gguf_files import model_metadata, write_model

Build = Callable[..., Awaitable[Fake]]
GPU = {"devices": "24GiB,cpu:8GiB", "device_reserve": "0"}


def value_of(args: tuple[str, ...], flag: str) -> str | None:
    return args[args.index(flag) + 1] if flag in args else None


def launched(house: Fake, name: str) -> tuple[str, ...]:
    return house.runtime.world.engine(name).spec.args


@pytest.fixture
async def gpu(build: Build) -> Fake:
    """A server that plans with a GPU, and an engine that is taken to see it."""
    return await build(settings=GPU)


async def test_what_is_chosen_is_what_runs_and_what_the_dry_run_shows(gpu: Fake) -> None:
    await gpu.add("a")
    run = await gpu.instances.dry_run("a")
    assert {line["name"] for line in run.chosen} == {"gpu_layers", "context_length", "fit"}
    assert all(line["reason"] for line in run.chosen)
    view = await gpu.instances.start("a", LOCAL_ADMIN)
    args = launched(gpu, "a")
    assert value_of(args, "--ctx-size") == "1024" and value_of(args, "--fit") == "off"
    layers = next(line["value"] for line in run.chosen if line["name"] == "gpu_layers")
    assert value_of(args, "--gpu-layers") == str(layers)
    assert view.spec_digest == run.spec_digest
    assert gpu.models.get("a").options == {}, "the recipe stays as it was written"


async def test_what_is_set_stays_however_it_was_set(gpu: Fake) -> None:
    await gpu.add("a", options={"gpu_layers": 1, "context_length": 300})
    await gpu.add("b", extra_args=("-ngl", "2"))
    await gpu.add("c", env={"LLAMA_ARG_CTX_SIZE": "400"})
    for name in "abc":
        await gpu.instances.start(name, LOCAL_ADMIN)
    args = launched(gpu, "a")
    assert (value_of(args, "--gpu-layers"), value_of(args, "--ctx-size")) == ("1", "300")
    args = launched(gpu, "b")
    assert "--gpu-layers" not in args and value_of(args, "-ngl") == "2"
    assert "--ctx-size" not in launched(gpu, "c")


async def test_an_option_of_one_launch_is_set_for_that_launch(gpu: Fake) -> None:
    await gpu.add("a", options={"context_length": 300})
    await gpu.instances.start("a", LOCAL_ADMIN, overrides={"ctx_size": 500})
    assert value_of(launched(gpu, "a"), "--ctx-size") == "500"


class Filling(Devices):
    """A host whose free memory is what the test says."""

    free_bytes = 11_000_000

    async def look(self) -> Sight:
        return Sight([Device("cpu", "host", "cpu", 12_000_000, self.free_bytes, is_real=False)], {})


async def test_the_same_hardware_gives_the_same_launch_however_full_it_is(build: Build) -> None:
    devices = Filling()
    house = await build(settings={"device_reserve": "0"}, devices=devices)
    model = await house.add("a", policy={"priority": 1})
    before = await house.instances.dry_run("a")
    await house.instances.start("a", LOCAL_ADMIN)
    devices.free_bytes = 100_000
    assert (await house.instances.dry_run("a")).spec_digest == before.spec_digest
    await house.models.update("a", {"options": {"threads": 1}}, LOCAL_ADMIN)
    await house.models.update("a", {"options": {"threads": None}}, LOCAL_ADMIN)
    async with asyncio.timeout(20):
        while house.instances.view(model.id).drift:
            await asyncio.sleep(0.01)


async def test_a_model_that_nothing_can_be_chosen_for_starts_as_it_is_and_the_dry_run_says_why(
    gpu: Fake, models_dir: Path
) -> None:
    write_model(
        models_dir / "d.gguf",
        metadata=model_metadata(llama__attention__head_count=None, llama__attention__head_count_kv=None),
    )
    await gpu.add("d")
    run = await gpu.instances.dry_run("d")
    (found,) = (found for found in run.findings if found.code == "nothing_chosen")
    assert run.chosen == () and "the header has no llama.attention.head_count" in found.message
    await gpu.instances.start("d", LOCAL_ADMIN)
    assert "--ctx-size" not in launched(gpu, "d")


def program(folder: Path, *lines: str) -> str:
    """A llama-server that prints these lines for help."""
    path = folder / "llama-server"
    text = "\n".join(f"echo '{line}'" for line in lines)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


FLAGS = ("--model", "--ctx-size", "--gpu-layers", "--host", "--port", "--metrics", "--slots", "--alias")


async def test_an_engine_that_knows_no_fitting_is_not_told_of_it(gpu: Fake, tmp_path: Path) -> None:
    old = program(tmp_path, *FLAGS)
    await gpu.add("a", engine_command=old)
    run = await gpu.instances.dry_run("a")
    assert run.errors == () and "--fit" not in run.argv and "--gpu-layers" in run.argv


async def test_an_engine_that_does_not_know_a_chosen_option_is_left_to_itself(
    gpu: Fake, tmp_path: Path
) -> None:
    ancient = program(tmp_path, *(flag for flag in FLAGS if flag != "--gpu-layers"))
    await gpu.add("a", engine_command=ancient)
    run = await gpu.instances.dry_run("a")
    assert run.errors == () and "--ctx-size" not in run.argv and run.has("nothing_chosen")


async def test_gpus_that_the_recipe_hides_are_not_planned_with(build: Build) -> None:
    house = await build(settings={"devices": "24GiB,12GiB,cpu:8GiB", "device_reserve": "0"})
    await house.add("a", env={"CUDA_VISIBLE_DEVICES": "1"})
    await house.add("b", env={"CUDA_VISIBLE_DEVICES": ""})
    one = await house.instances.dry_run("a")
    assert {d["id"] for d in one.fit or () if d["need_bytes"]} == {"cuda:1", "cpu"}
    assert "--tensor-split" not in one.argv
    none = await house.instances.dry_run("b")
    assert {d["id"] for d in none.fit or () if d["need_bytes"]} == {"cpu"}
    assert "--gpu-layers" not in none.argv
