"""From an exit code and a log to words that a person can act on."""

from __future__ import annotations

import asyncio
import logging
import signal

from ostler.core.errors import OstlerError
from ostler.core.launch import Handle
from ostler.engines.base import Engine
from ostler.instances.views import Failure
from ostler.instances.waiting import Turn, Watched
from ostler.runtimes.base import Observed, Runtime

log = logging.getLogger(__name__)

TAIL_LINES = 400
"""What is read to find a cause: vLLM prints a traceback per process after the line that tells it."""
KEPT_LINES = 40
"""What is kept of it with the failure."""
TAIL_TIMEOUT_S = 5.0


async def log_tail(runtime: Runtime, handle: Handle) -> tuple[str, ...]:
    """The engine's last lines; empty where they cannot be read in time."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(TAIL_TIMEOUT_S):
            async for line in runtime.logs(handle, tail_lines=TAIL_LINES, follow=False):
                lines.append(line[:1000])  # noqa: PERF401 - what came before a timeout counts
    except (TimeoutError, OSError, OstlerError) as error:
        log.warning("the log of %s cannot be read: %r", handle.data, error)
    return tuple(lines)


def explain_exit(engine: Engine, seen: Observed, lines: tuple[str, ...], *, when: str) -> Failure:
    """Why an engine ended by itself; `when` completes "the engine ended ..."."""
    found = engine.diagnose(lines, seen.exit_code, oom_killed=seen.oom_killed)
    how = f"the engine ended {when} {_manner(seen)}"
    if seen.port_taken:
        how = f"{how}: another program took its port"
    reason = f"{found.reason.rstrip('.')} ({how})" if found else how
    return Failure(
        reason=reason,
        hint=found.hint if found else None,
        diagnosis=found.title if found else None,
        exit_code=seen.exit_code,
        oom_killed=seen.oom_killed,
        log_tail=lines[-KEPT_LINES:],
    )


async def explain(watched: Watched, turn: Turn, seen: Observed | None, *, when: str, limit: float) -> Failure:
    """Why an engine is of no use any more, by how the wait for it ended.

    `limit` is what ran out: seconds for LATE, probes in a row for SICK while serving.
    """
    lines = await log_tail(watched.runtime, watched.handle)
    if turn is Turn.EXITED and seen is not None:
        return explain_exit(watched.engine, seen, lines, when=when)
    lines = lines[-KEPT_LINES:]
    if turn is Turn.LATE:
        hint = "Give it more time with the setting start_timeout_s, or use a smaller model."
        return Failure(f"the engine was not ready within {limit:g} s", hint=hint, log_tail=lines)
    what = "the engine says that it is dead"
    if seen is None:
        what = f"the engine did not answer {limit:g} health probes in a row"
    if trouble := watched.runtime.trouble:
        what = f"{what}, and {trouble}"
    return Failure(what, log_tail=lines)


def explain_error(error: OstlerError) -> Failure:
    """A failure that happened on our side, before there was an engine."""
    return Failure(reason=error.message, hint=error.hint)


def _manner(seen: Observed) -> str:
    if seen.oom_killed:
        return "because the kernel killed it for want of memory"
    if seen.exit_code is None:
        return "and nobody saw how"
    if seen.exit_code < 0:
        try:
            name = signal.Signals(-seen.exit_code).name
        except ValueError:
            name = "an unknown signal"
        return f"by signal {-seen.exit_code} ({name})"
    return f"with exit code {seen.exit_code}"
