"""The use cases of jobs: submit, watch, cancel, try again, and running what is queued.

Every transition is committed before the act that it announces. A job belongs to the node that it
was submitted on (a download fills that node's disk), and to one server there at a time: a server
takes a queued job by a conditional update, so two servers on one database never run it twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import Busy, TimedOut
from ostler.core.events import EventLog, NewEvent
from ostler.core.paging import Page
from ostler.core.principals import SYSTEM, Principal, Role
from ostler.core.states import JobState
from ostler.jobs import store
from ostler.jobs.owners import is_alive, this_owner
from ostler.jobs.progress import Progress
from ostler.jobs.records import (
    Discard,
    Job,
    JobNotFound,
    JobNotOver,
    JobNotRetryable,
    ProgressData,
    Runner,
    error_of,
    job_of,
)
from ostler.jobs.running import Kind, Running
from ostler.jobs.tables import JobRow
from ostler.jobs.waiters import Waiters

LOG = logging.getLogger(__name__)

BUSY_TICK_S = 2.0
IDLE_TICK_S = 15.0
CANCEL_WAIT_S = 30.0
OTHER_SERVER_POLL_S = 0.5


class Jobs:
    """Durable background work on one node. `start` before submitting, `stop` at the end."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        settings: Any,
        node: str,
        server_id: str,
        *,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._node = node
        self._owner = this_owner(server_id)
        self._new_id = new_id
        self._kinds: dict[str, Kind] = {}
        self._running: dict[str, Running] = {}
        self._waiters = Waiters()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._stopping = False

    def register(
        self, kind: str, runner: Runner, *, slots: Callable[[], int], discard: Discard | None = None
    ) -> None:
        """Say how jobs of a kind run, and how many at once (asked anew each time)."""
        self._kinds[kind] = Kind(runner, slots, discard)

    # -- life -----------------------------------------------------------------------------------

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

    # -- asking ---------------------------------------------------------------------------------

    async def submit(
        self, kind: str, title: str, request: Mapping[str, Any], dedupe_key: str, principal: Principal
    ) -> Job:
        """Queue a job, or return the open one for the same work (same `dedupe_key`)."""
        if kind not in self._kinds:
            raise ValueError(f"no runner is registered for jobs of the kind {kind!r}")
        for _ in range(10):
            try:
                async with self._database.write() as session:
                    existing = await store.open_with_key(session, dedupe_key)
                    if existing is not None:
                        return self._seen(existing)
                    row = store.new_row(
                        self._new_id(),
                        kind,
                        title,
                        request,
                        dedupe_key,
                        actor=principal.name,
                        node=self._node,
                        at=self._clock.now(),
                    )
                    session.add(row)
                    await session.flush()
                    await self._record(session, row, principal.name, f"{principal.name} asked for it")
            except IntegrityError:
                LOG.debug("another server queued %s at the same moment", dedupe_key)
                continue  # that one is open now, and is returned
            self._wake.set()
            return self._seen(row)
        raise Busy(f"the job {title!r} could not be queued", retry_after_s=1)

    async def get(self, job_id: str) -> Job:
        """The job as it is now. Raises JobNotFound."""
        async with self._database.read() as session:
            row = await session.get(JobRow, job_id)
        if row is None:
            raise JobNotFound(job_id)
        return self._seen(row)

    async def list(
        self, *, kind: str | None = None, state: JobState | None = None, limit: int = 50, offset: int = 0
    ) -> Page[Job]:
        """Jobs, newest first."""
        async with self._database.read() as session:
            page = await store.page(session, kind, state, limit, offset)
        return page.map(self._seen)

    async def wait(self, job_id: str, timeout_s: float) -> Job:
        """The job once it is over. Raises JobNotFound, and TimedOut when it takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with self._waiters.one(job_id) as over:
                        job = await self.get(job_id)
                        if job.state.is_over and job_id not in self._running:
                            return job
                        # A job of another server ends without a word to us: look again now and then.
                        await asyncio.wait([over], timeout=OTHER_SERVER_POLL_S)
        except TimeoutError:
            raise TimedOut(f"the job {job_id} is not over after {timeout_s:g} s", job=job_id) from None

    # -- changing -------------------------------------------------------------------------------

    async def cancel(self, job_id: str, principal: Principal, *, keep: bool = False) -> Job:
        """End a job for good; one that is over stays as it is. Returns once it has really ended.

        `keep`: what it has done so far stays, so that the same work, asked for again, goes on there.
        (A job that another server runs is cleared up all the same.)
        """
        job = await self.get(job_id)
        self._may_change(job, principal)
        async with self._database.write() as session:
            row = await store.change(
                session, job_id, [JobState.QUEUED], state=JobState.CANCELLED, finished_at=self._clock.now()
            )
            if row is not None:
                await self._record(session, row, principal.name, f"{principal.name} cancelled it")
            else:
                await store.change(session, job_id, [JobState.RUNNING], cancel_asked=True)
        if row is not None:
            if not keep:
                await self._discard(job_of(row))
            self._waiters.tell(job_id)
            return await self.get(job_id)
        if (running := self._running.get(job_id)) is not None:
            running.keep = keep
            running.cancel()
        self._wake.set()
        try:
            return await self.wait(job_id, CANCEL_WAIT_S)
        except TimedOut:
            LOG.warning("job %s was asked to end and has not ended after %g s", job_id, CANCEL_WAIT_S)
            return await self.get(job_id)

    async def retry(self, job_id: str, principal: Principal) -> Job:
        """Queue a failed or cancelled job again. Raises JobNotRetryable."""
        job = await self.get(job_id)
        self._may_change(job, principal)
        fresh: dict[str, Any] = {"progress": {}} if job.state is JobState.CANCELLED else {}
        try:
            async with self._database.write() as session:
                row = await store.change(
                    session,
                    job_id,
                    [JobState.FAILED, JobState.CANCELLED],
                    state=JobState.QUEUED,
                    owner=None,
                    cancel_asked=False,
                    error=None,
                    result=None,
                    finished_at=None,
                    **fresh,
                )
                if row is None:
                    raise JobNotRetryable(f"the job {job_id} is {job.state}", job=job_id, state=job.state)
                await self._record(session, row, principal.name, f"{principal.name} tried it again")
        except IntegrityError:
            raise JobNotRetryable("another job for the same work is already open", job=job_id) from None
        self._wake.set()
        return self._seen(row)

    async def remove(self, job_id: str, principal: Principal = SYSTEM) -> None:
        """Forget a job that is over, and what it left behind. Raises JobNotOver."""
        job = await self.get(job_id)
        self._may_change(job, principal)
        async with self._database.write() as session:
            row = await session.get(JobRow, job_id)
            if row is not None and not JobState(row.state).is_over:
                raise JobNotOver(job_id, JobState(row.state))
            if row is not None:
                await session.delete(row)
            same_work = await store.open_with_key(session, job.dedupe_key)
        if same_work is None and job.state is not JobState.SUCCEEDED:
            await self._discard(job)

    # -- working --------------------------------------------------------------------------------

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
        for kind, how in self._kinds.items():
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
            await self._record(session, row, SYSTEM.name, f"attempt {row.attempts}")
        job = job_of(row)
        progress = Progress(job.progress, self._clock, lambda news: self._announce(job, news))
        task = asyncio.create_task(self._run(job, self._kinds[kind], progress), name=f"job {job_id}")
        self._running[job_id] = Running(kind, task, progress)
        task.add_done_callback(lambda _: self._ended(job_id))

    def _ended(self, job_id: str) -> None:
        del self._running[job_id]
        self._waiters.tell(job_id)
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
            LOG.log(
                logging.WARNING if error_of(failure)["code"] != "internal" else logging.ERROR,
                "job %s (%s) failed: %s",
                job.id,
                job.title,
                failure,
                exc_info=error_of(failure)["code"] == "internal",
            )
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
            row = await session.get(JobRow, job.id)
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
            await self._record(session, row, SYSTEM.name, cause)
        running = self._running.get(job.id)
        if row.state == JobState.CANCELLED and not (running and running.keep):
            await self._discard(job)

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
            now = await session.get(JobRow, seen.id, with_for_update=True)
            if now is None or now.state != JobState.RUNNING or now.owner != seen.owner:
                return
            if (row := await store.change(session, seen.id, [JobState.RUNNING], **values)) is None:
                return
            await self._record(session, row, SYSTEM.name, "the server that ran it is gone")
        if row.state == JobState.CANCELLED:
            await self._discard(job_of(row))

    async def _keep_progress(self) -> None:
        changed = {job_id: run.progress for job_id, run in self._running.items() if run.progress.changed}
        if not changed:
            return
        async with self._database.write() as session:
            for job_id, progress in changed.items():
                progress.changed = False
                await store.change(session, job_id, [JobState.RUNNING], progress=dict(progress.values))

    async def _discard(self, job: Job) -> None:
        how = self._kinds.get(job.kind)
        if how is None or how.discard is None:
            return
        try:
            await how.discard(job)
        except Exception:
            LOG.exception("what job %s (%s) left behind could not be removed", job.id, job.title)

    # -- telling --------------------------------------------------------------------------------

    async def _record(self, session: AsyncSession, row: JobRow, actor: str, cause: str) -> None:
        data: dict[str, Any] = {"kind": row.kind, "attempts": row.attempts}
        if row.error is not None:
            data["error"] = row.error
        if row.result is not None:
            data["result"] = row.result
        await self._events.add(
            session, NewEvent(f"job.{row.state}", "job", row.id, row.title, actor, cause, data)
        )

    def _announce(self, job: Job, news: ProgressData) -> None:
        data = {"kind": job.kind, "progress": dict(news)}
        self._events.announce(NewEvent("job.progress", "job", job.id, job.title, SYSTEM.name, "", data))

    def _seen(self, row: JobRow) -> Job:
        job = job_of(row)
        running = self._running.get(job.id)
        return replace(job, progress=dict(running.progress.values)) if running else job

    def _may_change(self, job: Job, principal: Principal) -> None:
        if job.actor != principal.name:
            principal.require(Role.MANAGER, "change the jobs of others")
