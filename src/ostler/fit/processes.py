"""What the processes of an engine hold: on the host, and on the GPUs by the driver's list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psutil


def shared_bytes(pid: int) -> int:
    """Resident bytes of a process and its children that are mapped from files; 0 where nobody says."""
    total = 0
    for process in _family(pid):
        try:
            total += int(getattr(process.memory_info(), "shared", 0))
        except psutil.Error:
            continue
    return total


def gpu_bytes(pid: int, processes: Mapping[str, Mapping[int, int]]) -> dict[str, int]:
    """Bytes by GPU that a process and its children hold, out of the bytes by process on each GPU."""
    if not any(processes.values()):
        return {}
    family = {process.pid for process in _family(pid)}
    held = {gpu: sum(n for p, n in by_pid.items() if p in family) for gpu, by_pid in processes.items()}
    return {gpu: n for gpu, n in held.items() if n}


def strangers(ours: Iterable[int], processes: Mapping[str, Mapping[int, int]]) -> dict[str, dict[str, int]]:
    """Bytes by GPU and program that is not ours nor a child of ours: {"cuda:0": {"python3 (pid 7)": 9}}."""
    if not any(processes.values()):
        return {}
    known = {process.pid for pid in ours for process in _family(pid)}
    return {
        gpu: {_name(pid): n for pid, n in by_pid.items() if pid not in known}
        for gpu, by_pid in processes.items()
    }


def _name(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
