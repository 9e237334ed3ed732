"""What the processes of an engine hold: on the host, and on the GPUs by the driver's list."""

from __future__ import annotations

from collections.abc import Mapping

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


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
