"""Running what is queued: taking jobs, seeing them end, and taking back what a dead server left.

A server takes a queued job by a conditional update, so two servers on one database never run it
twice. Start reading at `Workshop._tick`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ostler.core.clock import Clock
from ostler.core.database import Database, row_to_change
from ostler.core.events import EventLog
from ostler.core.principals import SYSTEM
from ostler.core.states import JobState
from ostler.jobs import store
from ostler.jobs.owners import is_alive, this_owner
from ostler.jobs.progress import Progress
from ostler.jobs.records import Job, error_of, job_of
from ostler.jobs.running import Kind, Running
from ostler.jobs.tables import JobRow
from ostler.jobs.telling import announce, record
from ostler.jobs.waiters import Waiters

LOG = logging.getLogger(__name__)

BUSY_TICK_S = 2.0
IDLE_TICK_S = 15.0


class Workshop:
    """Runs the queued jobs of one node in this process; `kinds` says how, `waiters` hear of each end."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, node: str, server_id: str) -> None:
        self.kinds: dict[str, Kind] = {}
        self.waiters = Waiters()
        self._database = database
        self._events = events
        self._clock = clock
        self._node = node
        self._owner = this_owner(server_id)
        self._running: dict[str, Running] = {}
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Queue again what a server that is gone left running here, and begin to work."""
        self._stopping = False
        await self._recover()
        self._pump = asyncio.create_task(self._work(), name="jobs")

    async def stop(self) -> None:
        """End the work; what was running is queued and goes on at the next start."""
        self._stopping = True
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self._pump = None
        tasks = [running.task for running in self._running.values()]
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """There is something new to look at."""
        self._wake.set()

    def running(self, job_id: str) -> Running | None:
        """The job with this id, if it runs in this process."""
        return self._running.get(job_id)

    async def discard(self, job: Job) -> None:
        """Remove what an ended job left behind. A failure is logged, for nobody waits for it."""
        how = self.kinds.get(job.kind)
        if how is None or how.discard is None:
            return
        try:
            await how.discard(job)
        except Exception:
            LOG.exception("what job %s (%s) left behind could not be removed", job.id, job.title)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._tick()
                tick_s = BUSY_TICK_S if self._running else IDLE_TICK_S
            except Exception:
                LOG.exception("jobs could not be looked after; the next try follows in %g s", BUSY_TICK_S)
                tick_s = BUSY_TICK_S
            try:
                async with asyncio.timeout(tick_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _tick(self) -> None:
        await self._recover()
        await self._keep_progress()
        for kind, how in self.kinds.items():
            free = how.slots() - sum(running.kind == kind for running in self._running.values())
            if free <= 0:
                continue
            async with self._database.read() as session:
                waiting = await store.queued(session, kind, self._node, free)
            for job_id in waiting:
                await self._begin(kind, job_id)

    async def _begin(self, kind: str, job_id: str) -> None:
        async with self._database.write() as session:
            row = await store.claim(session, job_id, self._owner, self._clock.now())
            if row is None:
                return
            await record(self._events, session, row, SYSTEM.name, f"attempt {row.attempts}")
        job = job_of(row)
        progress = Progress(job.progress, self._clock, lambda news: announce(self._events, job, news))
        task = asyncio.create_task(self._run(job, self.kinds[kind], progress), name=f"job {job_id}")
        self._running[job_id] = Running(kind, task, progress)
        task.add_done_callback(lambda _: self._ended(job_id))

    def _ended(self, job_id: str) -> None:
        del self._running[job_id]
        self.waiters.tell(job_id)
        self._wake.set()

    async def _run(self, job: Job, how: Kind, progress: Progress) -> None:
        result: Mapping[str, Any] | None = None
        error: BaseException | None = None
        try:
            result = await how.run(job, progress.report)
        except asyncio.CancelledError as cancelled:
            error = cancelled
        except Exception as failure:
            error = failure
            unforeseen = error_of(failure)["code"] == "internal"
            level = logging.ERROR if unforeseen else logging.WARNING
            LOG.log(level, "job %s (%s) failed: %s", job.id, job.title, failure, exc_info=unforeseen)
        progress.close()
        # The end is written even while this task is being cancelled a second time.
        ending = asyncio.ensure_future(self._end(job, result, error, progress))
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                continue
            except Exception:
                LOG.exception("the end of job %s could not be written; it will be run again", job.id)

    async def _end(
        self, job: Job, result: Mapping[str, Any] | None, error: BaseException | None, progress: Progress
    ) -> None:
        async with self._database.write() as session:
            row = await row_to_change(session, JobRow, job.id)
            if row is None:
                return
            row.progress = dict(progress.values)
            row.finished_at = self._clock.now()
            cause = ""
            if row.cancel_asked:
                row.state, cause = JobState.CANCELLED, "it was cancelled"
            elif isinstance(error, asyncio.CancelledError) and self._stopping:
                row.state, row.owner, row.finished_at = JobState.QUEUED, None, None
                cause = "the server stops; it goes on at the next start"
            elif error is not None:
                row.state, row.error = JobState.FAILED, error_of(error)
                cause = row.error["message"]
            else:
                row.state, row.result, row.error = JobState.SUCCEEDED, dict(result or {}), None
            await session.flush()
            await record(self._events, session, row, SYSTEM.name, cause)
        running = self._running.get(job.id)
        if row.state == JobState.CANCELLED and not (running and running.keep):
            await self.discard(job_of(row))

    async def _recover(self) -> None:
        async with self._database.read() as session:
            rows = await store.running(session, self._node)
        for row in rows:
            if row.id in self._running:
                if row.cancel_asked:
                    self._running[row.id].cancel()
            elif row.owner == self._owner or not is_alive(row.owner):
                await self._take_back(row)

    async def _take_back(self, seen: JobRow) -> None:
        """Queue a job again whose server is gone, or end it if that server was asked to cancel it."""
        values: dict[str, Any] = {"state": JobState.QUEUED, "owner": None}
        if seen.cancel_asked:
            values = {"state": JobState.CANCELLED, "finished_at": self._clock.now()}
        async with self._database.write() as session:
            now = await row_to_change(session, JobRow, seen.id)
            if now is None or now.state != JobState.RUNNING or now.owner != seen.owner:
                return
            if (row := await store.change(session, seen.id, [JobState.RUNNING], **values)) is None:
                return
            await record(self._events, session, row, SYSTEM.name, "the server that ran it is gone")
        if row.state == JobState.CANCELLED:
            await self.discard(job_of(row))

    async def _keep_progress(self) -> None:
        changed = {job_id: run.progress for job_id, run in self._running.items() if run.progress.changed}
        if not changed:
            return
        async with self._database.write() as session:
            for job_id, progress in changed.items():
                progress.changed = False
                await store.change(session, job_id, [JobState.RUNNING], progress=dict(progress.values))
