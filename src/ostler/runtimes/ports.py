"""Loopback ports for engines.

A port can only be tried, not kept, for a program that binds it by itself. Ports are taken at random
from below the range that the system gives to outgoing connections, so losing one is rare; when it
happens, `foreign_listener` sees it and the launch is repeated with another.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from ostler.runtimes.pids import ProcessId

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_000
_LISTEN = "0A"


def free_port(taken: Collection[int], choose: random.Random) -> int:
    """A port on loopback that nobody has now. Raises OSError when none is found."""
    for _ in range(500):
        port = choose.randint(FIRST, LAST)
        if port not in taken and _can_bind(port):
            return port
    return _from_system()


def foreign_listener(port: int, ours: Iterable[ProcessId]) -> bool:
    """True when somebody listens on this port and none of `ours` does. False where unknown."""
    if sys.platform != "linux":
        return False
    listening = _listening_inodes(port)
    if not listening:
        return False
    for process in ours:
        try:
            descriptors = os.listdir(f"/proc/{process.pid}/fd")  # noqa: PTH208 - names are all we need
        except OSError:
            return False
        for fd in descriptors:
            try:
                target = os.readlink(f"/proc/{process.pid}/fd/{fd}")  # noqa: PTH115
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] in listening:
                return False
    return True


def _can_bind(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
        return True


def _from_system() -> int:
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return int(trial.getsockname()[1])


def _listening_inodes(port: int) -> set[str]:
    """Inodes of the sockets that listen on this port.

    The kernel lists listening sockets before all others, so the thousands of connections that a busy
    host has are not read.
    """
    wanted = f":{port:04X}"
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            with Path(f"/proc/self/net/{table}").open() as file:
                next(file, None)
                for line in file:
                    fields = line.split()
                    if fields[3] != _LISTEN:
                        break
                    if fields[1].endswith(wanted):
                        inodes.add(fields[9])
        except OSError:
            continue
    return inodes
