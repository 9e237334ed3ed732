"""A job's work in a process of its own: cancelling is real, and a crash takes nothing else with it.

The child is a module of ours. The first line of its stdin is the order (JSON), further lines are news for
it; the end of stdin tells it that nobody waits any more. Its stdout has JSON lines: {"event": "progress",
...}, at the end {"event": "done", ...} or {"event": "failed", "code": ..., "message": ...}.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

LOG = logging.getLogger(__name__)

END_WAIT_S = 5.0
NICE = 10
LOOK_FOR_NEWS_EVERY_S = 1.0
LINE_LIMIT = 1024 * 1024
STDERR_LINES = 20
_SECRET_PARTS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "DATABASE_URL")

News = Callable[[], Mapping[str, Any] | None]
"""What the child should hear now; None for nothing new. Asked every second."""


class ChildEnded(Exception):
    """The process ended without a last word. `log` are the last lines that it wrote."""

    def __init__(self, exit_code: int | None, log: list[str]) -> None:
        super().__init__(f"the process ended with {exit_code} and no word")
        self.exit_code = exit_code
        self.log = log


async def run_child(
    module: str,
    order: Mapping[str, Any],
    report: Callable[[Mapping[str, Any]], None],
    *,
    label: str,
    news: News = lambda: None,
    secret: str | None = None,
) -> dict[str, Any]:
    """Run a module with an order to its end; what it said last ("done" or "failed"). Raises ChildEnded.

    `label` names it in our log, where `secret` never shows. When this task is cancelled the child is
    ended first.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not any(part in k.upper() for part in _SECRET_PARTS)},
        start_new_session=True,  # Ctrl-C in the terminal is the server's to handle
        limit=LINE_LIMIT,
    )
    _lower(process.pid)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_steer(process, order, news, label))
            log = tasks.create_task(_log(process, label, secret))
            said = await _hear(process, report)
            await _end(process, label)
    finally:
        await _end(process, label)
    if not said:
        raise ChildEnded(process.returncode, log.result())
    return said


def _lower(pid: int) -> None:
    """Let what answers people go first: a child is in no hurry where the processors are busy."""
    with suppress(OSError, AttributeError):  # it ended already; no such thing on this system
        os.setpriority(os.PRIO_PROCESS, pid, NICE)


async def _hear(
    process: asyncio.subprocess.Process, report: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Pass progress on until the child says done or failed, or ends."""
    assert process.stdout is not None
    async for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if said["event"] != "progress":
            return said
        del said["event"]
        report(said)
    return {}


async def _steer(
    process: asyncio.subprocess.Process, order: Mapping[str, Any], news: News, label: str
) -> None:
    """Give the order, then what is new, until it ends."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        await process.stdin.drain()
        while not process.stdin.is_closing():
            try:
                async with asyncio.timeout(LOOK_FOR_NEWS_EVERY_S):
                    await process.wait()
                return
            except TimeoutError:
                if (told := news()) is not None:
                    process.stdin.write(json.dumps(told).encode() + b"\n")
                    await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        LOG.debug("the process of %s ended while being spoken to", label)


async def _log(process: asyncio.subprocess.Process, label: str, secret: str | None) -> list[str]:
    """Its log lines go to ours; the last few are kept."""
    assert process.stderr is not None
    last: list[str] = []
    async for raw in process.stderr:
        line = raw.decode(errors="replace").rstrip()
        line = line.replace(secret, "***") if secret else line
        LOG.info("%s: %s", label, line)
        last = [*last, line][-STDERR_LINES:]
    return last


async def _end(process: asyncio.subprocess.Process, label: str) -> None:
    """End of stdin tells the child to stop; if it does not, it is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(END_WAIT_S):
            await process.wait()
    except TimeoutError:
        LOG.warning("the process %d of %s does not end and is killed", process.pid, label)
        process.kill()
        await process.wait()
    except asyncio.CancelledError:
        process.kill()
        raise
