"""A container's own limit of memory counts like the machine's, and is named where it is too small."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.fit.device import Device
from ostler.instances.errors import WillNotFit
from ostler.instances.limits import within_limits
from tests.instances.conftest import Fake
from tests.library.gguf_files import model_metadata, write_model
from tests.runtimes.fake import FakeRuntime

Build = Callable[..., Awaitable[Fake]]
MIB = 1 << 20
LIMIT = "where its container may take 10 MiB (runtime_options.memory)"


@pytest.fixture
async def house(build: Build) -> Fake:
    """A server with much memory whose models run in containers."""
    settings = {"devices": "cpu:1GiB", "device_reserve": "0"}
    return await build(FakeRuntime(name="docker"), settings=settings)


async def test_a_model_that_is_larger_than_its_container_is_refused_with_a_setting_that_fits(
    house: Fake,
) -> None:
    recipe = {"runtime": "docker", "runtime_options": {"memory": "10MiB"}}
    model = await house.add("a", options={"context_length": 8192}, **recipe)
    run = await house.instances.dry_run("a")
    assert run.fits is False and run.fit is not None and run.fit[0]["headroom_bytes"] < 0
    assert LIMIT in run.errors[0]
    with pytest.raises(WillNotFit) as refused:
        await house.instances.start("a", LOCAL_ADMIN)
    assert LIMIT in refused.value.message and refused.value.facts["devices"][0]["limit_bytes"] == 10 * MIB
    assert house.runtime.starts == []

    fitting = refused.value.facts["context_length_that_fits"]
    await house.models.update("a", {"options": {"context_length": fitting}}, LOCAL_ADMIN)
    await house.instances.start("a", LOCAL_ADMIN)
    assert house.state(model) == "running"


async def test_a_model_without_a_limit_may_have_the_machine(house: Fake) -> None:
    model = await house.add("a", options={"context_length": 8192}, runtime="docker")
    await house.instances.start("a", LOCAL_ADMIN)
    assert house.state(model) == "running"


async def test_what_is_left_open_is_chosen_to_stay_within_the_container(
    house: Fake, models_dir: Path
) -> None:
    metadata = model_metadata(llama__context_length=131072)
    for name in "ab":
        write_model(models_dir / f"{name}.gguf", metadata=metadata)
    await house.add("a", runtime="docker")
    await house.add("b", runtime="docker", runtime_options={"memory": "60MiB"})
    longer, shorter = [(await house.instances.choice(name)).options["context_length"] for name in "ab"]
    assert shorter < longer
    assert (await house.instances.dry_run("b")).fits is True


def test_a_limit_beyond_the_machine_changes_nothing_and_one_below_it_counts_whole() -> None:
    host = Device("cpu", "8 CPU cores", "cpu", 100 * MIB, 50 * MIB)
    assert within_limits([host], {"cpu": 100 * MIB}, {"": 10 * MIB}) == [host]
    (limited,) = within_limits([host], {"cpu": 40 * MIB}, {"": 10 * MIB})
    assert (limited.total_bytes - 10 * MIB, limited.free_bytes) == (40 * MIB, 40 * MIB)
