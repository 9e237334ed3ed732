"""What is special to processes: sessions, pids, ports, the environment, logs on disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pyreqwest.exceptions import RequestError

from ostler.core.launch import Handle
from ostler.runtimes.base import LaunchFailed
from ostler.runtimes.environment import clean_environment
from ostler.runtimes.notes import Note, Notes
from ostler.runtimes.pids import ProcessId, identify
from ostler.runtimes.ports import FIRST, LAST, foreign_listener, free_port
from ostler.runtimes.process import ProcessRuntime
from tests.runtimes.contract import ask, lines, up
from tests.runtimes.test_process_contract import spec

Make = Callable[..., ProcessRuntime]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes runtimes over one folder."""
    made: list[ProcessRuntime] = []

    def build(log_bytes: int = 1_000_000, **more: object) -> ProcessRuntime:
        made.append(ProcessRuntime(tmp_path / "state", log_bytes, **more))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for runtime in made:
        for found in await runtime.discover():
            await runtime.stop(found.handle, grace_s=0)


def is_running(pid: int) -> bool:
    process = identify(pid)
    return process is not None and process.is_alive


async def child_of(runtime: ProcessRuntime, handle: Handle) -> int:
    """The pid of the engine's own child, which it prints."""
    async for line in runtime.logs(handle, tail_lines=None, follow=True):
        if line.startswith("child "):
            return int(line.split()[1])
    raise AssertionError("the engine ended")


async def test_an_engine_leads_a_session_of_its_own(make: Make) -> None:
    handle = await make().launch(spec(), instance_id=1, secrets={})
    assert os.getsid(handle.data["pid"]) == handle.data["pid"] != os.getsid(0)


async def test_stop_takes_the_whole_family_with_it(make: Make) -> None:
    runtime = make()
    handle = await runtime.launch(spec("--child"), instance_id=1, secrets={})
    child = await child_of(runtime, handle)
    await runtime.stop(handle, grace_s=0.2)
    assert not is_running(child)


async def test_what_a_dead_engine_left_behind_is_swept(make: Make) -> None:
    runtime = make()
    handle = await runtime.launch(spec("--child"), instance_id=1, secrets={})
    child = await child_of(runtime, handle)
    os.kill(handle.data["pid"], signal.SIGKILL)
    seen = await runtime.wait_exit(handle)
    assert seen.exit_code == -9
    assert is_running(child)
    await runtime.stop(handle, grace_s=0)
    assert not is_running(child)


async def test_no_zombie_is_left(make: Make) -> None:
    runtime = make()
    handle = await runtime.launch(spec("--exit-code", "0"), instance_id=1, secrets={})
    await runtime.wait_exit(handle)
    assert not psutil.pid_exists(handle.data["pid"])


async def test_a_pid_that_was_given_to_another_is_neither_believed_nor_signalled(make: Make) -> None:
    runtime = make()
    handle = await runtime.launch(spec(), instance_id=1, secrets={})
    await runtime.stop(handle, grace_s=0)
    await asyncio.sleep(0.05)  # beginnings are told apart by the kernel's clock ticks of 10 ms
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        reused = replace(handle, data={**handle.data, "pid": stranger.pid})
        assert (await runtime.inspect(reused)).state == "gone"
        assert not (await runtime.wait_exit(reused)).is_alive
        await runtime.stop(reused, grace_s=0)
        assert stranger.poll() is None
        ProcessId(stranger.pid, "another beginning").send(signal.SIGKILL)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_the_same_instance_is_not_launched_twice(make: Make) -> None:
    runtime = make()
    await runtime.launch(spec(), instance_id=1, secrets={})
    with pytest.raises(LaunchFailed, match="runs already"):
        await runtime.launch(spec(), instance_id=1, secrets={})


async def test_an_engine_whose_pid_was_never_noted_is_found_by_its_log(make: Make, tmp_path: Path) -> None:
    """The server died right between making the process and writing its pid down."""
    handle = await make().launch(spec(), instance_id=5, secrets={})
    notes = Notes(tmp_path / "state" / "notes")
    note = notes.read(5)
    assert note is not None
    notes.write(replace(note, pid=None, began=None))
    after = make()
    (found,) = await after.discover()
    assert found.handle == handle
    await after.stop(found.handle, grace_s=5)
    assert not is_running(handle.data["pid"])


async def test_a_note_without_a_process_is_gone_and_forgotten(make: Make, tmp_path: Path) -> None:
    notes = Notes(tmp_path / "state" / "notes")
    log = str(tmp_path / "state" / "logs" / "1-9.log")
    notes.write(Note(instance_id=9, model_id=1, spec_digest="d", port=20_001, log=log))
    (tmp_path / "state" / "notes" / "8.json").write_text("{broken")
    runtime = make()
    (found,) = await runtime.discover()
    assert (await runtime.inspect(found.handle)).state == "gone"
    await runtime.stop(found.handle, grace_s=0)
    assert await runtime.discover() == []


async def test_the_exit_code_is_known_to_the_next_server_where_it_was_seen(make: Make) -> None:
    first = make()
    handle = await first.launch(spec("--exit-code", "7"), instance_id=1, secrets={})
    await first.wait_exit(handle)
    assert (await make().inspect(handle)).exit_code == 7


async def test_notes_and_logs_are_private_and_hold_no_secret(make: Make, tmp_path: Path) -> None:
    handle = await make().launch(spec(secret_env=("KEY",)), instance_id=1, secrets={"KEY": "s3cret"})
    await up(handle)
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        assert path.stat().st_mode & 0o077 == 0
        assert b"s3cret" not in path.read_bytes()


async def test_an_engine_does_not_see_what_is_the_servers_alone(make: Make) -> None:
    mine = {
        "HF_TOKEN": "x",
        "OSTLER_DATABASE_URL": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "LLAMA_ARG_PORT": "1",
        "CUDA_VISIBLE_DEVICES": "3",
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
    }
    handle = await make(environment=mine).launch(spec(), instance_id=1, secrets={})
    await up(handle)
    for name in ("HF_TOKEN", "OSTLER_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "LLAMA_ARG_PORT"):
        assert (await ask(handle, f"/env?name={name}"))[0] == 404, name
    assert await ask(handle, "/env?name=CUDA_VISIBLE_DEVICES") == (200, "3")


def test_a_model_may_be_given_what_the_server_keeps_to_itself() -> None:
    assert clean_environment({"HUGGING_FACE_HUB_TOKEN": "x", "openai_api_key": "x", "LANG": "C"}) == {
        "LANG": "C"
    }


@pytest.mark.parametrize(("more_kills", "code", "expected"), [(1, 9, True), (0, 9, False), (1, 11, False)])
async def test_a_kill_for_want_of_memory_is_told_from_another(
    make: Make, more_kills: int, code: int, expected: bool
) -> None:
    kills = iter([5, 5 + more_kills])
    runtime = make(oom_kills=lambda: next(kills))
    handle = await runtime.launch(spec(), instance_id=1, secrets={})
    await up(handle)
    with pytest.raises(RequestError):
        await ask(handle, f"/kill?signal={code}")
    assert (await runtime.wait_exit(handle)).oom_killed is expected


async def test_logs_are_rotated_while_the_engine_writes_and_old_ones_go(make: Make, tmp_path: Path) -> None:
    runtime = make(log_bytes=2_000)
    for instance_id in range(1, 6):
        handle = await runtime.launch(spec("--lines", "400"), instance_id=instance_id, secrets={})
        await up(handle)
        if instance_id < 5:
            await runtime.stop(handle, grace_s=5)
    await runtime.tidy()
    await ask(handle, "/say?text=after")
    logs = sorted(path.name for path in (tmp_path / "state" / "logs").iterdir())
    assert logs == ["1-3.log", "1-4.log", "1-5.log", "1-5.log.1"]
    assert (tmp_path / "state" / "logs" / "1-5.log").read_text() == "after\n"
    assert await lines(runtime.logs(handle, tail_lines=2, follow=False)) == ["ready", "after"]


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runtime = ProcessRuntime(tmp_path / "file" / "state", 1_000)
    check = await runtime.check()
    assert not check.ok and str(tmp_path) in check.reason
    with pytest.raises(LaunchFailed):
        await runtime.launch(spec(), instance_id=1, secrets={})


async def test_a_working_folder_that_is_gone_is_named(make: Make) -> None:
    lost = replace(spec(), working_dir="/no/such/folder")
    with pytest.raises(LaunchFailed, match="/no/such/folder"):
        await make().launch(lost, instance_id=1, secrets={})


def test_ports_are_below_the_systems_own_range_and_free() -> None:
    choose = random.Random(7)
    port = free_port((), choose)
    assert FIRST <= port <= LAST
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        assert free_port((), random.Random(7)) != port
    assert free_port((port,), random.Random(7)) != port


async def test_another_program_at_the_port_is_noticed(make: Make) -> None:
    """Port in use: the engine cannot listen, and somebody else would answer in its place."""
    runtime = make()
    handle = await runtime.launch(spec("--load-s", "-1", "--ignore-term"), instance_id=1, secrets={})
    port = handle.data["port"]
    async with asyncio.timeout(20):
        while foreign_listener(port, ()) is False:
            await asyncio.sleep(0.01)
    assert not (await runtime.inspect(handle)).port_taken
    await runtime.stop(handle, grace_s=0)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        lost = make(choose=_Always(port))
        with pytest.MonkeyPatch.context() as patch:  # the moment between looking and binding
            patch.setattr("ostler.runtimes.ports._can_bind", lambda _: True)
            second = await lost.launch(spec(), instance_id=2, secrets={})
        seen = await asyncio.wait_for(lost.wait_exit(second), 20)
        assert second.data["port"] == port
        assert seen.port_taken


class _Always(random.Random):
    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value

    def randint(self, a: int, b: int) -> int:
        return self.value


async def test_exits_are_seen_on_the_loop_that_servers_use(make: Make) -> None:
    """uvloop has its own way with file descriptors."""
    code = """
import asyncio, sys, uvloop
from pathlib import Path
from ostler.runtimes.process import ProcessRuntime
from tests.runtimes.test_process_contract import spec
async def main(folder):
    runtime = ProcessRuntime(folder, 1000)
    handle = await runtime.launch(spec("--exit-code", "4"), instance_id=1, secrets={})
    seen = await asyncio.wait_for(runtime.wait_exit(handle), 20)
    again = await runtime.launch(spec(), instance_id=2, secrets={})
    waiting = asyncio.create_task(ProcessRuntime(folder, 1000).wait_exit(again))
    await asyncio.sleep(0)
    await runtime.stop(again, grace_s=0)
    print(seen.exit_code, (await waiting).state)
uvloop.run(main(Path(sys.argv[1])))
"""
    folder = str(make()._state_dir) + "-uvloop"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, folder, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out.split() in ([b"4", b"gone"], [b"4", b"exited"])
