"""Which server runs a job, told so that another can see whether that server is still alive.

An owner is `server-id|pid|seconds since boot`: the pid says where to look, the start time tells a
reused pid apart. Seconds since boot, because a jump of the wall clock does not change them.
"""

from __future__ import annotations

import os

import psutil

SAME_START_S = 2.0


def this_owner(server_id: str) -> str:
    """The owner that stands for the server in this process."""
    return f"{server_id}|{os.getpid()}|{_started_s(psutil.Process()):.1f}"


def is_alive(owner: str | None) -> bool:
    """True while the process of that owner exists on this machine."""
    try:
        _, pid, started_s = (owner or "").rsplit("|", 2)
        process = psutil.Process(int(pid))
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return alive and abs(_started_s(process) - float(started_s)) < SAME_START_S
    except psutil.AccessDenied:
        return True
    except (ValueError, psutil.Error):
        return False


def _started_s(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()
