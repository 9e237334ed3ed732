"""Was it the kernel's out-of-memory killer? Counters say so, where they can be read."""

from __future__ import annotations

import contextlib
from pathlib import Path

KILLED = (-9, 137)
"""Exit codes of a killed process: seen by its parent, and through a shell or wrapper (128 + 9)."""


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory so far, None where unknown.

    From our control group (v2 `memory.events`, v1 `memory.oom_control`), else of the whole machine
    (`/proc/vmstat`); see the kernel's admin-guide/cgroup-v2.
    """
    for path in (*_group_files(), Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return None


def _group_files() -> list[Path]:
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                found.append(Path(f"/sys/fs/cgroup{group}/memory.events"))
            elif "memory" in controllers.split(","):
                found.append(Path(f"/sys/fs/cgroup/memory{group}/memory.oom_control"))
    return found
