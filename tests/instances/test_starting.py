"""Starting: one start for all, and the truth about those that fail."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ostler.core.errors import NotAllowed
from ostler.core.principals import LOCAL_ADMIN, Principal
from ostler.core.states import DesiredState
from ostler.instances.errors import AlreadyRunning, NotOnDemand, StartFailed
from ostler.models.index import ModelNotFound
from ostler.models.sources import ModelFileGone
from ostler.runtimes.base import LaunchFailed
from tests.instances.conftest import Fake


async def test_a_started_model_runs_and_says_so(house: Fake) -> None:
    model = await house.add("a")
    view = await house.instances.start("a", LOCAL_ADMIN)
    assert view.state == "running"
    assert view.load_seconds is not None and view.pid and view.memory_bytes
    assert house.models.get("a").desired_state is DesiredState.RUNNING
    kinds = [e.kind for e in (await house.events.find(kind="instance.", newest_first=False))[0]]
    assert kinds == ["instance.starting", "instance.loading", "instance.running"]
    lease = house.instances.try_lease(model.id)
    assert lease is not None and lease.base_url == view.url
    assert lease.api_key == house.runtime.world.engine("a").secrets["LLAMA_API_KEY"]
    lease.release()


async def test_a_model_that_never_ran_is_stopped_and_lends_nothing(house: Fake) -> None:
    model = await house.add("a")
    assert house.state(model) == "stopped"
    assert house.instances.try_lease(model.id) is None
    assert house.instances.views() == []


async def test_loading_is_shown_until_the_engine_says_ready(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.load_gate.hold()
    view = await house.instances.start("a", LOCAL_ADMIN, wait=False)
    assert view.state == "starting"
    await house.until("instance.loading")
    assert house.state(model) == "loading"
    assert house.instances.try_lease(model.id) is None
    house.runtime.load_gate.release()
    await house.instances.start("a", LOCAL_ADMIN)
    assert house.state(model) == "running"


async def test_two_starts_are_one_start(house: Fake) -> None:
    model = await house.add("a")
    views = await asyncio.gather(
        *(house.instances.start("a", LOCAL_ADMIN) for _ in range(5)), *(house.lease(model) for _ in range(5))
    )
    assert house.runtime.starts == ["a"]
    assert {lease.instance_id for lease in views[5:]} == {house.instances.view(model.id).id}
    assert house.instances.view(model.id).in_flight == 5


async def test_a_caller_who_gives_up_does_not_end_the_start_for_others(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.start_gate.hold()
    impatient = asyncio.create_task(house.lease(model))
    patient = asyncio.create_task(house.lease(model))
    await house.runtime.start_gate.asked.wait()
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    house.runtime.start_gate.release()
    (await patient).release()
    assert house.runtime.starts == ["a"]
    assert house.instances.view(model.id).in_flight == 0


async def test_a_request_starts_a_model_on_demand_which_nobody_wants_kept(house: Fake) -> None:
    model = await house.add("a")
    (await house.lease(model)).release()
    view = house.instances.view(model.id)
    assert (view.state, view.cause) == ("running", "demand")
    assert house.models.get("a").desired_state is DesiredState.STOPPED
    (starting,) = await house.happened("instance.starting")
    assert starting.actor == LOCAL_ADMIN.name and "request" in starting.cause


async def test_a_person_keeps_what_a_request_had_started(house: Fake) -> None:
    model = await house.add("a")
    (await house.lease(model)).release()
    view = await house.instances.start("a", LOCAL_ADMIN)
    assert view.cause == "person"
    assert house.models.get("a").desired_state is DesiredState.RUNNING
    assert view.expires_at is None
    assert house.runtime.starts == ["a"]
    assert house.state(model) == "running"


async def test_a_model_that_is_not_on_demand_is_not_started_by_a_request(house: Fake) -> None:
    model = await house.add("a", policy={"on_demand": False})
    with pytest.raises(NotOnDemand) as caught:
        await house.lease(model)
    assert caught.value.hint == "Start it with: ostler start a"
    assert house.runtime.starts == []
    await house.instances.start("a", LOCAL_ADMIN)
    (await house.lease(model)).release()


async def test_an_engine_that_dies_while_loading_is_failed_with_reason_lines_and_code(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.exit_while_loading(3, "loading", "error: out of cheese")
    with pytest.raises(StartFailed) as caught:
        await house.instances.start("a", LOCAL_ADMIN)
    failure = caught.value.failure
    assert failure.exit_code == 3
    assert failure.log_tail[-1] == "error: out of cheese"
    assert "exit code 3" in failure.reason
    assert caught.value.hint
    view = house.instances.view(model.id)
    assert (view.state, view.reason) == ("failed", failure.reason)
    (event,) = await house.happened("instance.failed")
    assert event.data["exit_code"] == 3
    assert house.runtime.starts == ["a"], "a first start is not repeated"


async def test_a_known_cause_in_the_log_is_named(house: Fake) -> None:
    await house.add("a")
    house.runtime.exit_while_loading(1, "ggml_backend_cuda: cudaMalloc failed: out of memory")
    with pytest.raises(StartFailed) as caught:
        await house.instances.start("a", LOCAL_ADMIN)
    assert caught.value.failure.diagnosis
    assert caught.value.hint == caught.value.failure.hint


async def test_a_kill_for_want_of_memory_is_named(house: Fake) -> None:
    await house.add("a")
    house.runtime.exit_while_loading(-9, oom_killed=True)
    with pytest.raises(StartFailed) as caught:
        await house.instances.start("a", LOCAL_ADMIN)
    assert caught.value.failure.oom_killed
    assert "memory" in caught.value.failure.reason


async def test_after_a_failure_requests_get_its_reason_and_not_a_loop_of_starts(house: Fake) -> None:
    house.settings.change(restart_backoff_s=60.0)
    model = await house.add("a")
    house.runtime.exit_while_loading(3, times=2)
    for _ in range(3):
        with pytest.raises(StartFailed, match="exit code 3"):
            await house.lease(model)
    assert house.runtime.starts == ["a"]
    with pytest.raises(StartFailed):
        await house.instances.start("a", LOCAL_ADMIN)
    assert house.runtime.starts == ["a", "a"], "a person may always try again"
    assert (await house.instances.start("a", LOCAL_ADMIN)).state == "running"


async def test_an_engine_that_is_never_ready_is_failed_and_stopped(house: Fake) -> None:
    model = await house.add("a", policy={"start_timeout_s": 0.1})
    house.runtime.load_gate.hold()
    with pytest.raises(StartFailed, match=r"not ready within 0\.1 s"):
        await house.instances.start("a", LOCAL_ADMIN)
    assert house.state(model) == "failed"
    assert house.runtime.world.alive == []


async def test_a_program_that_cannot_be_launched_is_a_failed_start(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.launch_error = LaunchFailed("there is no program x", hint="Install x.")
    with pytest.raises(StartFailed, match="there is no program x") as caught:
        await house.instances.start("a", LOCAL_ADMIN)
    assert caught.value.hint == "Install x."
    assert house.state(model) == "failed"


async def test_a_file_that_is_gone_between_create_and_start_is_said(house: Fake, models_dir: Path) -> None:
    model = await house.add("a")
    (models_dir / "a.gguf").unlink()
    for _ in range(2):
        with pytest.raises(ModelFileGone) as caught:
            await house.instances.start("a", LOCAL_ADMIN)
    assert caught.value.hint
    with pytest.raises(ModelFileGone):
        await house.lease(model)
    assert house.runtime.starts == []
    assert house.state(model) == "failed"
    refused = await house.happened("instance.refused")
    assert [event.data["code"] for event in refused] == ["model_file_gone"]


async def test_an_engine_whose_port_was_taken_is_launched_again(house: Fake) -> None:
    model = await house.add("a")
    house.runtime.take_next_ports(1)
    assert (await house.instances.start("a", LOCAL_ADMIN)).state == "running"
    assert house.runtime.starts == ["a", "a"]
    assert house.instances.view(model.id).restarts == 0


async def test_a_port_that_is_always_taken_is_a_failed_start(house: Fake) -> None:
    await house.add("a")
    house.runtime.take_next_ports(10)
    with pytest.raises(StartFailed, match="took its port"):
        await house.instances.start("a", LOCAL_ADMIN)
    assert len(house.runtime.starts) == 4


async def test_a_mere_user_may_not_start_or_stop(house: Fake, user: Principal) -> None:
    await house.add("a")
    with pytest.raises(NotAllowed):
        await house.instances.start("a", user)
    with pytest.raises(NotAllowed):
        await house.instances.stop("a", user)
    assert house.runtime.starts == []


async def test_a_start_may_bring_options_of_its_own(house: Fake) -> None:
    await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN, overrides={"ctx_size": 128})
    args = house.runtime.world.engine("a").spec.args
    assert args[args.index("--ctx-size") + 1] == "128"
    with pytest.raises(AlreadyRunning):
        await house.instances.start("a", LOCAL_ADMIN, overrides={"ctx_size": 256})


async def test_a_dry_run_shows_the_command_and_hides_the_secret(house: Fake) -> None:
    await house.add("a", options={"ctx_size": 128})
    run = await house.instances.dry_run("a")
    assert run.errors == ()
    assert ("--port", "PORT") in zip(run.argv, run.argv[1:], strict=False)
    assert "--ctx-size" in run.argv
    assert run.env["LLAMA_API_KEY"] == "********"
    assert house.runtime.starts == []
    view = await house.instances.start("a", LOCAL_ADMIN)
    assert view.spec_digest == run.spec_digest


async def test_a_dry_run_names_what_would_go_wrong(house: Fake, models_dir: Path) -> None:
    await house.add("a", extra_args=("--no-such-flag",))
    (error,) = (await house.instances.dry_run("a")).errors
    assert "--no-such-flag" in error
    await house.add("b")
    (models_dir / "b.gguf").unlink()
    assert len((await house.instances.dry_run("b")).errors) == 1


async def test_changed_options_are_drift_until_they_are_applied(house: Fake) -> None:
    model = await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    await house.models.update("a", {"request_defaults": {"temperature": 0.5}}, LOCAL_ADMIN)
    await house.instances.apply("a", LOCAL_ADMIN)
    assert house.runtime.starts == ["a"], "request defaults need no restart"
    await house.models.update("a", {"options": {"ctx_size": 128}}, LOCAL_ADMIN)
    async with asyncio.timeout(20):
        while not house.instances.view(model.id).drift:
            await asyncio.sleep(0.01)
    view = await house.instances.apply("a", LOCAL_ADMIN)
    assert house.runtime.starts == ["a", "a"]
    assert (view.state, view.drift) == ("running", False)


async def test_a_model_that_runs_cannot_be_deleted(house: Fake) -> None:
    await house.add("a")
    await house.instances.start("a", LOCAL_ADMIN)
    with pytest.raises(Exception, match="a is running"):
        await house.models.delete("a", LOCAL_ADMIN)
    await house.instances.stop("a", LOCAL_ADMIN)
    await house.models.delete("a", LOCAL_ADMIN)
    assert house.instances.views() == []


async def test_the_log_of_the_last_launch_can_be_read_when_it_is_over(house: Fake) -> None:
    await house.add("a")
    assert [line async for line in house.instances.logs("a")] == []
    await house.instances.start("a", LOCAL_ADMIN)
    await house.instances.stop("a", LOCAL_ADMIN)
    assert [line async for line in house.instances.logs("a", tail=2)] == ["ready", "bye"]


async def test_a_model_deleted_while_its_start_begins_is_not_found(house: Fake) -> None:
    await house.add("a")
    store = house.instances._house.store
    begin_now = store.begin

    async def deleted_just_before(*args: Any, **more: Any) -> Any:
        house.models._guards.clear()  # it was asked before the start was
        await house.models.delete("a", LOCAL_ADMIN)
        return await begin_now(*args, **more)

    store.begin = deleted_just_before  # type: ignore[method-assign]
    with pytest.raises(ModelNotFound):
        await house.instances.start("a", LOCAL_ADMIN)
    assert house.runtime.starts == []
