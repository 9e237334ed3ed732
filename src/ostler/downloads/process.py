"""The server's side of the worker process: start it, hear it, end it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ostler.downloads.errors import DownloadFailed, error_from
from ostler.downloads.order import Order

LOG = logging.getLogger(__name__)

END_WAIT_S = 5.0
LOOK_AT_SETTINGS_EVERY_S = 1.0
LINE_LIMIT = 1024 * 1024
STDERR_LINES = 20
_SECRET_PARTS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "DATABASE_URL")


async def fetch(
    order: Order, report: Callable[[Mapping[str, Any]], None], rate_limit: Callable[[], int]
) -> Mapping[str, Any]:
    """Run a worker to its end; what it said last. Raises the error that it named.

    When this task is cancelled the worker is ended first; what has arrived stays in the staging folder.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ostler.downloads.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not any(part in k.upper() for part in _SECRET_PARTS)},
        start_new_session=True,  # Ctrl-C in the terminal is the server's to handle
        limit=LINE_LIMIT,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_steer(process, order, rate_limit))
            log = tasks.create_task(_log(process, order))
            said = await _hear(process, report)
            await _end(process)
    finally:
        await _end(process)
    if said.get("event") == "done":
        return said
    if said.get("event") == "failed":
        raise error_from(str(said["code"]), str(said["message"]), order.repo)
    tail = " | ".join(log.result())
    raise DownloadFailed(
        f"the download process ended with {process.returncode} and no word" + (f": {tail}" if tail else ""),
        hint="Try it again: what has arrived is kept.",
        repo=order.repo,
    )


async def _hear(
    process: asyncio.subprocess.Process, report: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Pass progress on until the worker says done or failed, or ends."""
    assert process.stdout is not None
    async for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if said["event"] != "progress":
            return said
        del said["event"]
        report(said)
    return {}


async def _steer(process: asyncio.subprocess.Process, order: Order, rate_limit: Callable[[], int]) -> None:
    """Give the order, then tell the worker when the limit of bandwidth changes, until it ends."""
    assert process.stdin is not None
    now = order.rate_limit
    try:
        process.stdin.write(json.dumps(order.to_json()).encode() + b"\n")
        await process.stdin.drain()
        while not process.stdin.is_closing():
            try:
                async with asyncio.timeout(LOOK_AT_SETTINGS_EVERY_S):
                    await process.wait()
                return
            except TimeoutError:
                if rate_limit() != now:
                    now = rate_limit()
                    process.stdin.write(json.dumps({"rate_limit": now}).encode() + b"\n")
                    await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        LOG.debug("the download process of %s ended while being spoken to", order.repo)


async def _log(process: asyncio.subprocess.Process, order: Order) -> list[str]:
    """Its log lines go to ours; the last few are kept. A token never shows."""
    assert process.stderr is not None
    last: list[str] = []
    async for raw in process.stderr:
        line = raw.decode(errors="replace").rstrip()
        line = line.replace(order.token, "***") if order.token else line
        LOG.info("download of %s: %s", order.repo, line)
        last = [*last, line][-STDERR_LINES:]
    return last


async def _end(process: asyncio.subprocess.Process) -> None:
    """End of stdin tells the worker to stop; if it does not, it is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(END_WAIT_S):
            await process.wait()
    except TimeoutError:
        LOG.warning("the download process %d does not end and is killed", process.pid)
        process.kill()
        await process.wait()
    except asyncio.CancelledError:
        process.kill()
        raise
