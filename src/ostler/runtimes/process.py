"""The process runtime: an engine is a child of this machine that outlives the server.

Each engine leads a session of its own, writes its log file itself and listens on loopback only. It is
known by pid and beginning (`pids.py`), so that a number which the kernel gave away again is never
signalled. Notes on disk (`notes.py`) let a restarted server find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ostler.core.launch import HOST_SLOT, PORT_SLOT, Handle, LaunchSpec
from ostler.runtimes import oom
from ostler.runtimes.base import Discovered, LaunchFailed, Observed, RuntimeCheck, StopFailed, Tell
from ostler.runtimes.environment import clean_environment
from ostler.runtimes.logfile import LOGS_KEPT, LineCutter, LogFile, log_path, old_logs
from ostler.runtimes.notes import Note, Notes
from ostler.runtimes.pids import ProcessId, find_writer, identify, resident_bytes, session_of
from ostler.runtimes.ports import HOST, foreign_listener, free_port

KILL_WAIT_S = 30.0
FOLLOW_POLL_S = 0.1


class ProcessRuntime:
    """Engines as processes. `state_dir` holds notes and logs; a log is rotated above `log_bytes`.

    `environment` is what engines inherit after cleaning; `oom_kills` counts the kernel's kills.
    """

    name = "process"
    trouble: str | None = None

    def __init__(
        self,
        state_dir: Path,
        log_bytes: int,
        *,
        environment: Mapping[str, str] | None = None,
        oom_kills: Callable[[], int | None] = oom.oom_kills,
        choose: random.Random | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._notes = Notes(state_dir / "notes")
        self._logs_dir = state_dir / "logs"
        self._log_bytes = log_bytes
        self._environment = clean_environment(os.environ if environment is None else environment)
        self._oom_kills = oom_kills
        self._choose = choose or random.SystemRandom()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._told_to_end: set[int] = set()
        self._logs: dict[Path, LogFile] = {}
        self._lock = threading.Lock()

    async def lacks(self, spec: LaunchSpec) -> str | None:
        """See `Runtime.lacks`: a program is there or not."""
        return None

    async def provide(self, spec: LaunchSpec, tell: Tell) -> None:
        """See `Runtime.provide`: nothing is fetched."""

    async def launch(self, spec: LaunchSpec, *, instance_id: int, secrets: Mapping[str, str]) -> Handle:
        """See `Runtime.launch`."""
        note = await asyncio.to_thread(self._create, spec, instance_id, dict(secrets))
        return note.handle()

    async def inspect(self, handle: Handle) -> Observed:
        """See `Runtime.inspect`."""
        return await asyncio.to_thread(self._observe, handle)

    async def wait_exit(self, handle: Handle) -> Observed:
        """See `Runtime.wait_exit`."""
        process = _process(handle)
        if process is not None:
            await process.ended()
        return await self.inspect(handle)

    async def stop(self, handle: Handle, *, grace_s: float) -> None:
        """See `Runtime.stop`."""
        instance_id, process = _instance_id(handle), _process(handle)
        self._told_to_end.add(instance_id)
        if process is not None:
            await self._end(process, Path(handle.data["log"]), grace_s)
        await asyncio.to_thread(self._forget, instance_id)

    async def logs(self, handle: Handle, *, tail_lines: int | None, follow: bool) -> AsyncIterator[str]:
        """See `Runtime.logs`."""
        log, process, cutter = self._log(Path(handle.data["log"])), _process(handle), LineCutter()
        position = await asyncio.to_thread(log.tail, tail_lines)
        while True:
            is_over = not follow or process is None or not process.is_alive
            data, position = await asyncio.to_thread(log.read, position)
            for line in cutter.feed(data):
                yield line
            if not data and is_over:
                break
            if not data:
                await asyncio.sleep(FOLLOW_POLL_S)
        for line in cutter.finish():
            yield line

    async def discover(self) -> list[Discovered]:
        """See `Runtime.discover`."""
        notes = await asyncio.to_thread(self._found_again)
        return [Discovered(n.handle(), n.model_id, n.instance_id, n.spec_digest) for n in notes]

    async def check(self) -> RuntimeCheck:
        """See `Runtime.check`."""
        facts = {"state_dir": str(self._state_dir), "exits_seen_by": "pidfd" if _has_pidfd() else "polling"}
        try:
            await asyncio.to_thread(self._prepare_folders)
        except OSError as error:
            return RuntimeCheck(False, f"{self._state_dir} cannot be written: {error.strerror}", facts)
        return RuntimeCheck(True, "", facts)

    async def tidy(self) -> None:
        """See `Runtime.tidy`."""
        await asyncio.to_thread(self._tidy)

    async def close(self) -> None:
        """See `Runtime.close`: there is nothing to close."""

    # What follows blocks and runs in threads.

    def _create(self, spec: LaunchSpec, instance_id: int, secrets: Mapping[str, str]) -> Note:
        if not spec.command:
            raise LaunchFailed(f"{spec.model_name} has no command to run", model=spec.model_name)
        with self._lock:  # one at a time: a port chosen here is noted before the next is chosen
            note = self._first_note(spec, instance_id)
        argv = [_filled(part, note.port) for part in (*spec.command, *spec.args)]
        environment = {**self._environment, **spec.env, **secrets}
        try:
            fd = self._log(Path(note.log)).open_for_child()
            try:
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=fd,
                    stderr=fd,
                    cwd=spec.working_dir,
                    env=environment,
                    start_new_session=True,
                )
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            self._notes.remove(instance_id)
            raise _launch_failed(spec, argv[0], error) from error
        self._children[instance_id] = child
        process = identify(child.pid)  # our unreaped child: the pid is surely its own
        note = replace(note, pid=child.pid, began=process.began if process else "")
        try:
            self._notes.write(note)
        except OSError as error:
            child.kill()
            child.wait()
            raise _launch_failed(spec, argv[0], error) from error
        return note

    def _first_note(self, spec: LaunchSpec, instance_id: int) -> Note:
        try:
            self._prepare_folders()
            notes = self._notes.all()
            for other in notes:
                if other.instance_id == instance_id and other.process and other.process.is_alive:
                    raise LaunchFailed(
                        f"instance {instance_id} runs already as process {other.pid}", pid=other.pid
                    )
            note = Note(
                instance_id=instance_id,
                model_id=spec.model_id,
                spec_digest=spec.digest(),
                port=free_port({n.port for n in notes}, self._choose),
                log=str(log_path(self._logs_dir, spec.model_id, instance_id)),
                oom_kills=self._oom_kills(),
            )
            self._told_to_end.discard(instance_id)
            self._notes.write(note)
        except OSError as error:
            raise _launch_failed(spec, spec.command[0], error) from error
        return note

    def _observe(self, handle: Handle) -> Observed:
        instance_id, process = _instance_id(handle), _process(handle)
        log, port = Path(handle.data["log"]), int(handle.data["port"])
        if process is None:
            return Observed("gone")
        self._reap(instance_id)
        if process.is_alive:
            members = session_of(process, log)
            return Observed(
                "alive",
                pid=process.pid,
                memory_bytes=resident_bytes(members),
                port_taken=foreign_listener(port, members),
            )
        note = self._notes.read(instance_id)
        if note is None or not note.ended or note.process != process:
            return Observed("gone", pid=process.pid)
        return Observed(
            "exited",
            exit_code=note.exit_code,
            oom_killed=note.oom_killed,
            pid=process.pid,
            port_taken=foreign_listener(port, session_of(process, log)),
        )

    def _reap(self, instance_id: int) -> None:
        """Take the exit code of a child that ended, and keep it in its note."""
        with self._lock:
            child = self._children.get(instance_id)
            code = child.poll() if child is not None else None
            if code is None:
                return
            del self._children[instance_id]
            note = self._notes.read(instance_id)
            if note is None:
                return
            kills = self._oom_kills()
            more = kills is not None and note.oom_kills is not None and kills > note.oom_kills
            is_oom = code in oom.KILLED and more and instance_id not in self._told_to_end
            with contextlib.suppress(OSError):  # a full disk: the code is lost, which `inspect` says
                self._notes.write(replace(note, ended=True, exit_code=code, oom_killed=is_oom))

    async def _end(self, process: ProcessId, log: Path, grace_s: float) -> None:
        started = time.monotonic()
        members = await asyncio.to_thread(session_of, process, log)
        for member in members:
            member.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for member in members:
                    await member.ended()
        while members := await asyncio.to_thread(session_of, process, log):
            for member in members:
                member.send(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    for member in members:
                        await member.ended()
            if time.monotonic() - started > grace_s + KILL_WAIT_S:
                raise StopFailed(
                    f"process {process.pid} does not end although it was killed",
                    hint="It hangs in the kernel, often in a device driver. Look at: dmesg",
                    pid=process.pid,
                )

    def _forget(self, instance_id: int) -> None:
        self._reap(instance_id)
        with self._lock:
            self._children.pop(instance_id, None)
            self._told_to_end.discard(instance_id)
            self._notes.remove(instance_id)

    def _found_again(self) -> list[Note]:
        """All notes; those without a pid (we died between launch and noting it) are completed."""
        found = []
        for note in self._notes.all():
            if note.process is None and note.instance_id not in self._children:
                writer = find_writer(Path(note.log))
                if writer is not None:
                    note = replace(note, pid=writer.pid, began=writer.began)
                    self._notes.write(note)
            found.append(note)
        return found

    def _tidy(self) -> None:
        for instance_id in list(self._children):
            self._reap(instance_id)
        noted = {Path(note.log) for note in self._notes.all()}
        for path in noted:
            self._log(path).rotate(self._log_bytes)
        for path in old_logs(self._logs_dir, LOGS_KEPT):
            if path not in noted:
                self._log(path).delete()
                self._logs.pop(path, None)

    def _prepare_folders(self) -> None:
        for folder in (self._state_dir, self._logs_dir, self._state_dir / "notes"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied", str(folder))

    def _log(self, path: Path) -> LogFile:
        return self._logs.setdefault(path, LogFile(path))


def _filled(part: str, port: int) -> str:
    return part.replace(HOST_SLOT, HOST).replace(PORT_SLOT, str(port))


def _instance_id(handle: Handle) -> int:
    return int(handle.data["instance_id"])


def _process(handle: Handle) -> ProcessId | None:
    pid, began = handle.data.get("pid"), handle.data.get("began")
    return ProcessId(int(pid), str(began)) if pid is not None and began is not None else None


def _has_pidfd() -> bool:
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def _launch_failed(spec: LaunchSpec, program: str, error: OSError | ValueError) -> LaunchFailed:
    facts = {"model": spec.model_name, "program": program}
    if isinstance(error, ValueError):
        return LaunchFailed(f"{program} cannot be started: {error}", **facts)
    if isinstance(error, FileNotFoundError) and error.filename == program:
        return LaunchFailed(
            f"there is no program {program}",
            hint="See which engines are here with: ostler doctor",
            **facts,
        )
    where = f" ({error.filename})" if error.filename else ""
    return LaunchFailed(f"{program} cannot be started: {error.strerror}{where}", **facts)
