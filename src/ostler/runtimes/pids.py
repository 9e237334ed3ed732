"""Processes that can be told apart for ever: a pid together with the moment it began.

The kernel gives a pid again once it is free, so nothing here looks at or signals a pid whose
beginning is not the one that was noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

POLL_S = 0.1
_LINUX = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process. `began` is a mark of the moment it was created, the same for its whole life.

    On Linux it is "boot id:clock ticks since boot", which a jump of the wall clock does not change
    (psutil's create time moves with it); elsewhere psutil's create time.
    """

    pid: int
    began: str

    @property
    def is_alive(self) -> bool:
        """True while this very process runs; a zombie does not."""
        found = _look(self.pid)
        return found is not None and found[0] == self.began and not found[1]

    @property
    def number_is_ours(self) -> bool:
        """True while the pid means this process, as a zombie too."""
        found = _look(self.pid)
        return found is not None and found[0] == self.began

    def send(self, number: signal.Signals) -> None:
        """Signal this process, never another that got its pid. Gone is fine."""
        with contextlib.suppress(ProcessLookupError):
            if not _LINUX:
                if self.is_alive:
                    os.kill(self.pid, number)
                return
            fd = os.pidfd_open(self.pid)
            try:
                if self.is_alive:
                    signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)

    async def ended(self) -> None:
        """Return as soon as it does not run any more (it may still be a zombie)."""
        while self.is_alive:
            try:
                fd = os.pidfd_open(self.pid) if _LINUX else -1
            except ProcessLookupError:
                return
            except OSError:
                fd = -1
            if fd < 0:
                await asyncio.sleep(POLL_S)
                continue
            try:
                if self.is_alive:
                    await _readable(fd)
            finally:
                os.close(fd)


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now."""
    found = _look(pid)
    return ProcessId(pid, found[0]) if found else None


def session_of(leader: ProcessId, log: Path) -> list[ProcessId]:
    """Every living process of the session that `leader` began (it may itself be gone).

    While a session has members, the kernel does not give its number again; so where the leader is
    gone, members are ours if they write to our `log`, and nothing is ours where the number has a
    new owner.
    """
    found = _look(leader.pid)
    if found is not None and found[0] != leader.began:
        return []
    members = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) != leader.pid:
                continue
        except OSError:
            continue
        process = identify(pid)
        if process is None or not process.is_alive:
            continue
        if found is not None or writes_to(process, log):
            members.append(process)
    return members


def family_of(pid: int) -> list[ProcessId]:
    """The process with this pid and all that descend from it."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    found = (identify(member) for member in (pid, *(child.pid for child in children)))
    return [process for process in found if process is not None]


def find_writer(log: Path) -> ProcessId | None:
    """The session leader that has this file as its output: an engine whose pid was never noted."""
    for pid in psutil.pids():
        try:
            is_leader = os.getsid(pid) == pid
        except OSError:
            continue
        process = identify(pid) if is_leader else None
        if process is not None and writes_to(process, log):
            return process
    return None


def writes_to(process: ProcessId, log: Path) -> bool:
    """True when the process has this file open."""
    try:
        if _LINUX:
            return any(_same_file(f"/proc/{process.pid}/fd/{fd}", log) for fd in (1, 2))
        return any(Path(f.path) == log for f in psutil.Process(process.pid).open_files())
    except (OSError, psutil.Error):
        return False


def resident_bytes(processes: Iterable[ProcessId]) -> int | None:
    """Resident memory of these processes together, None where it cannot be read."""
    total = 0
    seen = False
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(process.pid).memory_info().rss
            seen = True
    return total if seen else None


def _same_file(link: str, log: Path) -> bool:
    try:
        return os.path.samestat(os.stat(link), log.stat())  # noqa: PTH116 - a magic link of /proc
    except OSError:
        return False


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _look(pid: int) -> tuple[str, bool] | None:
    """(mark of the beginning, is it a zombie), None where there is no such process."""
    if not _LINUX:
        try:
            process = psutil.Process(pid)
            return f"{process.create_time():.3f}", process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # proc(5): the name in parentheses may hold anything; after it field 3 is the state, 22 the start.
    fields = text[text.rindex(")") + 2 :].split()
    return f"{_boot_id()}:{fields[19]}", fields[0] in ("Z", "X")


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
