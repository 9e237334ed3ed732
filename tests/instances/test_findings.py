"""What a dry run finds, and that a start refuses for the same reasons unless told otherwise."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ostler.core.errors import InvalidField, Kind
from ostler.core.findings import Category, Finding, Severity
from ostler.core.launch import LaunchSpec
from ostler.core.principals import LOCAL_ADMIN
from ostler.engines.base import UnknownFlag
from ostler.instances.errors import StartBlocked, WillNotFit
from ostler.models.records import NewModel
from tests.instances.conftest import Fake
from tests.library.gguf_files import write_shards
from tests.runtimes.fake import FakeRuntime

Build = Callable[..., Awaitable[Fake]]
CORES = os.cpu_count() or 1


async def found(house: Fake, name: str, **ways: Any) -> dict[str, Finding]:
    return {one.code: one for one in (await house.instances.dry_run(name, **ways)).findings}


async def test_an_unknown_flag_refuses_a_start_unless_it_is_to_be_ignored(house: Fake) -> None:
    model = await house.add("a", extra_args=("--no-such-flag",))
    flag = (await found(house, "a"))["unknown_flag"]
    assert (flag.severity, flag.category, flag.can_ignore) == (Severity.ERROR, Category.ARGS, True)
    assert flag.field == "extra_args" and flag.fix
    with pytest.raises(UnknownFlag):
        await house.instances.start("a", LOCAL_ADMIN)
    await house.instances.start("a", LOCAL_ADMIN, ignore=["unknown_flag"])
    assert house.state(model) == "running"
    await house.runtime.exit("a", 1)
    await house.until("instance.running", 2)
    assert house.runtime.starts == ["a", "a"], "what a person decided holds after a fault"
    await house.instances.restart("a", LOCAL_ADMIN)
    assert house.state(model) == "running"


async def test_errors_that_are_ignored_become_warnings(house: Fake) -> None:
    await house.add("a", extra_args=("--no-such-flag",))
    run = await house.instances.dry_run("a", ignore=["unknown_flag"])
    assert run.errors == () and run.has("unknown_flag") and run.to_json()["can_start"] is True
    assert run.fits is True, "an error that can be ignored does not hide the fit"


async def test_only_what_can_be_ignored_is_taken_and_near_codes_are_named(house: Fake) -> None:
    await house.add("a")
    with pytest.raises(InvalidField, match="no error 'model_file_gone' can be ignored"):
        await house.instances.start("a", LOCAL_ADMIN, ignore=["model_file_gone"])
    with pytest.raises(InvalidField) as wrong:
        await house.instances.dry_run("a", ignore=["does_not_fitt"])
    assert wrong.value.hint == "Did you mean does_not_fit?"
    assert house.runtime.starts == []


async def test_a_quantized_cache_of_values_without_flash_attention_is_refused_before_the_engine_does(
    house: Fake,
) -> None:
    model = await house.add("a", options={"kv_cache_type": "q8_0", "flash_attention": "off"})
    with pytest.raises(StartBlocked, match="refuses cached values of the type q8_0") as refused:
        await house.instances.start("a", LOCAL_ADMIN)
    assert refused.value.kind is Kind.CONFLICT and house.runtime.starts == []
    assert refused.value.facts["findings"][0]["code"] == "v_cache_needs_flash_attention"
    assert "--ignore v_cache_needs_flash_attention" in (refused.value.hint or "")
    await house.instances.start("a", LOCAL_ADMIN, ignore=["v_cache_needs_flash_attention"])
    assert house.state(model) == "running"


async def test_does_not_fit_is_one_of_the_codes(build: Build) -> None:
    house = await build(settings={"devices": "cpu:10MiB", "device_reserve": "0"})
    model = await house.add("a", options={"context_length": 8192})
    error = (await found(house, "a"))["does_not_fit"]
    assert error.category is Category.MEMORY and "context_length=" in (error.fix or "")
    with pytest.raises(WillNotFit):
        await house.instances.start("a", LOCAL_ADMIN)
    await house.instances.start("a", LOCAL_ADMIN, ignore=["does_not_fit"])
    assert house.state(model) == "running"


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        ({"context_length": 2048}, "context_beyond_training", "options.context_length"),
        ({"threads": CORES + 1}, "more_threads_than_cores", "options.threads"),
        ({"gpu_layers": 0}, "gpu_unused", "options.gpu_layers"),
    ],
)
async def test_what_is_unwise_is_a_warning_with_a_fix_and_starts(
    build: Build, options: dict[str, Any], code: str, field: str
) -> None:
    house = await build(settings={"devices": "24GiB,cpu:8GiB"})
    await house.add("a", options=options)
    warning = (await found(house, "a"))[code]
    assert (warning.severity, warning.field, bool(warning.fix)) == (Severity.WARNING, field, True)
    await house.instances.start("a", LOCAL_ADMIN)
    await house.add("b")
    assert not {code} & (await found(house, "b")).keys()


async def test_a_context_that_slots_share_out_is_not_beyond_training(house: Fake) -> None:
    await house.add("a", options={"context_length": 2048, "parallel_slots": 2})
    assert "context_beyond_training" not in await found(house, "a")


async def test_a_file_that_is_gone_cannot_be_ignored(house: Fake, models_dir: Path) -> None:
    await house.add("a")
    (models_dir / "a.gguf").unlink()
    gone = (await found(house, "a"))["model_file_gone"]
    assert gone.severity is Severity.ERROR and not gone.can_ignore and gone.fix


async def test_a_missing_shard_is_named(house: Fake, models_dir: Path) -> None:
    parts = write_shards(models_dir, "big-F16", 3)
    await house.models.create(NewModel({"path": parts[0].name}, name="big"), LOCAL_ADMIN)
    parts[1].unlink()
    missing = (await found(house, "big"))["model_files_missing"]
    assert missing.severity is Severity.ERROR and parts[1].name in missing.message


async def test_a_model_that_runs_is_told_its_fit_as_if_it_started_anew(house: Fake) -> None:
    house.settings.change(max_running=1)
    await house.add("a")
    before = await house.instances.dry_run("a")
    await house.instances.start("a", LOCAL_ADMIN)
    run = await house.instances.dry_run("a")
    assert run.fits is True and run.fit is not None and before.fit is not None
    assert run.fit[0]["need_bytes"] == before.fit[0]["need_bytes"]
    assert run.would_stop == (), "it does not have to leave for itself"


async def test_headroom_is_what_is_left_once_others_have_left(build: Build) -> None:
    house = await build(settings={"devices": "cpu:10MiB", "device_reserve": "1MiB"})
    a, _ = [await house.add(name) for name in "ab"]
    (cpu,) = (await house.instances.dry_run("b")).fit or ()
    assert cpu["headroom_bytes"] == 9 * 2**20 - cpu["need_bytes"]
    (await house.lease(a)).release()
    (beside,) = (await house.instances.dry_run("b")).fit or ()
    assert not beside["fits"] and beside["headroom_bytes"] == cpu["headroom_bytes"]


class Lacking(FakeRuntime):
    """A runtime that has to fetch something first."""

    async def lacks(self, spec: LaunchSpec) -> str | None:
        return f"the image of {spec.model_name} is fetched first"


async def test_what_is_fetched_before_a_start_is_told(build: Build) -> None:
    house = await build(Lacking())
    await house.add("a")
    told = (await found(house, "a"))["to_fetch"]
    assert (told.severity, told.message) == (Severity.INFO, "the image of a is fetched first")
    assert (await house.instances.dry_run("a")).errors == ()
