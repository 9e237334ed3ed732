"""What a keeper waits for: an engine to load, and a running one to need something.

Here is only looking and waiting; what follows from it, each transition, is the keeper's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from ostler.core.launch import Handle
from ostler.core.settings import Settings
from ostler.engines.base import Engine, Health
from ostler.instances.health import HealthProbe
from ostler.runtimes.base import Observed, Runtime, RuntimeAway

T = TypeVar("T")

CANCEL_AGAIN_S = 0.1


class Bell:
    """Wakes the one who waits, whatever else it waits for."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something was asked or has changed."""
        self._rung.set()

    async def wait(self, tasks: Iterable[asyncio.Task[Any]] = (), timeout_s: float | None = None) -> None:
        """Return when the bell rings, one of the tasks is done or the time is up."""
        rung = asyncio.create_task(self._rung.wait())
        try:
            await asyncio.wait({*tasks, rung}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(rung)
        self._rung.clear()

    async def unless(self, is_asked: Callable[[], bool], work: Coroutine[Any, Any, T]) -> T | None:
        """The result of the work, or None (the work cancelled) once the bell rang and `is_asked`."""
        task = asyncio.create_task(work)
        try:
            while not task.done():
                if is_asked():
                    return None
                await self.wait((task,))
            return task.result()
        finally:
            await cancel(task)


class Turn(StrEnum):
    """How a wait ended."""

    ASKED = "asked"
    READY = "ready"
    EXITED = "exited"
    SICK = "sick"
    LATE = "late"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Watched:
    """An engine in the hands of a runtime, and how to ask for it. `now` is monotonic seconds."""

    runtime: Runtime
    handle: Handle
    engine: Engine
    probe: HealthProbe
    settings: Callable[[], Settings]
    now: Callable[[], float]

    async def look(self) -> Observed | None:
        """What is true of it; None where the runtime does not answer."""
        try:
            return await self.runtime.inspect(self.handle)
        except RuntimeAway:
            return None

    async def is_well(self, is_serving: Callable[[], bool]) -> bool:
        """One probe of an engine that was ready before.

        Silence counts as a fault only of an engine that serves nobody: llama-server answers probes
        with the same few threads as requests (`--threads-http`), so a busy one may have none left.
        """
        timeout_s = self.settings().probe_timeout_s
        health = await self.probe.ask(self.engine, self.handle.url, timeout_s=timeout_s, was_ready=True)
        return health is Health.READY or (health is None and is_serving())


async def wait_until_ready(
    watched: Watched, bell: Bell, is_asked: Callable[[], bool], limit_s: float
) -> tuple[Turn, Observed | None]:
    """READY, EXITED, SICK (it says that it is dead), LATE (after `limit_s`) or ASKED.

    EXITED as well where somebody else answers at its port (`Observed.port_taken`).
    """
    runtime, handle, began = watched.runtime, watched.handle, watched.now()
    timeout_s = watched.settings().probe_timeout_s
    exited = asyncio.create_task(runtime.wait_exit(handle))
    settled = asyncio.create_task(
        watched.probe.until_settled(watched.engine, handle.url, timeout_s=timeout_s)
    )
    try:
        while not exited.done() and not settled.done():
            if is_asked():
                return Turn.ASKED, None
            left = began + limit_s - watched.now()
            if left <= 0:
                return Turn.LATE, None
            await bell.wait((exited, settled), left)
        if is_asked():
            return Turn.ASKED, None
        seen = exited.result() if exited.done() else await watched.look()
        if seen is not None and (not seen.is_alive or seen.port_taken):
            return Turn.EXITED, seen
        return (Turn.READY if settled.result() is Health.READY else Turn.SICK), seen
    finally:
        await cancel(exited, settled)


class Watch:
    """Looks after a running engine; `on_seen` is told what was measured."""

    def __init__(
        self,
        watched: Watched,
        bell: Bell,
        idle_at: Callable[[], float | None],
        is_serving: Callable[[], bool],
        on_seen: Callable[[Observed], None],
    ) -> None:
        self.failed_probes = 0
        self._watched = watched
        self._bell = bell
        self._idle_at = idle_at
        self._is_serving = is_serving
        self._on_seen = on_seen
        self._suspect = False

    def suspect(self) -> None:
        """A request found it broken: probe at once."""
        self._suspect = True
        self._bell.ring()

    async def until_needed(self, is_asked: Callable[[], bool]) -> tuple[Turn, Observed | None]:
        """EXITED, SICK (too many failed probes in a row), IDLE (for too long) or ASKED."""
        w = self._watched
        exited = asyncio.create_task(w.runtime.wait_exit(w.handle))
        probing: asyncio.Task[bool] | None = None
        next_probe = w.now() + w.settings().probe_interval_s
        try:
            while not is_asked():
                if exited.done():
                    return Turn.EXITED, exited.result()
                if probing is not None and probing.done():
                    self.failed_probes = 0 if probing.result() else self.failed_probes + 1
                    probing, next_probe = None, w.now() + w.settings().probe_interval_s
                    if self.failed_probes >= w.settings().probe_failures:
                        return Turn.SICK, None
                    if (looked := await w.look()) is not None:
                        self._on_seen(looked)
                    continue
                if probing is None and (self._suspect or w.now() >= next_probe):
                    self._suspect = False
                    probing = asyncio.create_task(w.is_well(self._is_serving))
                idle_at = self._idle_at()
                if idle_at is not None and w.now() >= idle_at:
                    return Turn.IDLE, None
                moments = [t for t in (None if probing else next_probe, idle_at) if t is not None]
                left = max(0.0, min(moments) - w.now()) if moments else None
                await self._bell.wait((exited, probing) if probing else (exited,), left)
            return Turn.ASKED, None
        finally:
            await cancel(exited, *([probing] if probing else []))


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these and hear their end, so that no task is left behind.

    They are cancelled until they end: a probe was seen to outlive its cancel (pyreqwest, perhaps when the
    answer comes at the same moment), and who only waited for it would wait for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
