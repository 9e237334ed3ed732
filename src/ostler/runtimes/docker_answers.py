"""What a daemon's answers about a container mean, in the words of the contract of runtimes."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostler.core.launch import Handle
from ostler.runtimes.base import Observed
from ostler.runtimes.container_config import INSTANCE_LABEL, MODEL_LABEL, PORT, PORT_LABEL
from ostler.runtimes.pids import family_of, resident_bytes
from ostler.runtimes.ports import HOST as LOOPBACK

NAME = "docker"


def observed(told: Mapping[str, Any]) -> Observed:
    """What a container's inspection (`GET /containers/{id}/json`) means. Reads /proc for its memory."""
    state = told["State"]
    status, code = state.get("Status"), state.get("ExitCode")
    if state.get("Running") or status in ("running", "paused", "restarting"):
        pid = _visible_pid(int(state.get("Pid") or 0), told["Id"])
        memory = resident_bytes(family_of(pid)) if pid else None
        return Observed("alive", pid=pid, memory_bytes=memory)
    if status == "removing" or (status in ("created", "configured", "initialized") and not code):
        return Observed("gone")
    if code is not None and 128 < code <= 128 + signal.SIGRTMAX:
        code = 128 - code  # a shell's and a container's way to say: by a signal
    return Observed("exited", exit_code=code, oom_killed=bool(state.get("OOMKilled")))


def _visible_pid(pid: int, container_id: str) -> int | None:
    """The pid, where it is one of this machine: not in a virtual machine, not seen out of a container."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text() if pid else ""
    except OSError:
        return None
    return pid if container_id in groups else None


def handle_of(container_id: str, port: int, labels: Mapping[str, str]) -> Handle:
    """What is kept of one of our containers, by its labels and its port on loopback."""
    data = {
        "container": container_id,
        "model_id": int(labels[MODEL_LABEL]),
        "instance_id": int(labels[INSTANCE_LABEL]),
    }
    return Handle(runtime=NAME, url=f"http://{LOOPBACK}:{port}", data=data)


def port_of(told: Mapping[str, Any]) -> int:
    """Its port on loopback, out of an inspection or a list; 0 while it has none (it does not run)."""
    labels = told.get("Labels") or told.get("Config", {}).get("Labels") or {}
    if labels.get(PORT_LABEL):
        return int(labels[PORT_LABEL])
    for port in told.get("Ports") or ():
        if port.get("PrivatePort") == PORT and port.get("PublicPort"):
            return int(port["PublicPort"])
    published = (told.get("NetworkSettings") or {}).get("Ports") or {}
    for binding in published.get(f"{PORT}/tcp") or ():
        return int(binding.get("HostPort") or 0)
    return 0
