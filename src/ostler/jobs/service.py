"""The use cases of jobs: submit, watch, cancel, try again. `workshop.py` runs them.

Every transition is committed before the act that it announces. A job belongs to the node that it
was submitted on (a download fills that node's disk), and to one server there at a time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import IntegrityError

from ostler.core.clock import Clock
from ostler.core.database import Database, row_to_change
from ostler.core.errors import Busy, TimedOut
from ostler.core.events import EventLog
from ostler.core.paging import Page
from ostler.core.principals import SYSTEM, Principal, Role
from ostler.core.states import JobState
from ostler.jobs import store
from ostler.jobs.records import (
    Discard,
    Job,
    JobNotFound,
    JobNotOver,
    JobNotRetryable,
    Runner,
    job_of,
)
from ostler.jobs.running import Kind
from ostler.jobs.tables import JobRow
from ostler.jobs.telling import record
from ostler.jobs.workshop import Workshop

LOG = logging.getLogger(__name__)

CANCEL_WAIT_S = 30.0
OTHER_SERVER_POLL_S = 0.5


class Jobs:
    """Durable background work on one node. `start` before submitting, `stop` at the end."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        node: str,
        server_id: str,
        *,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._node = node
        self._new_id = new_id
        self._workshop = Workshop(database, events, clock, node, server_id)

    def register(
        self, kind: str, runner: Runner, *, slots: Callable[[], int], discard: Discard | None = None
    ) -> None:
        """Say how jobs of a kind run, and how many at once (asked anew each time)."""
        self._workshop.kinds[kind] = Kind(runner, slots, discard)

    async def start(self) -> None:
        """Queue again what a server that is gone left running here, and begin to work."""
        await self._workshop.start()

    async def stop(self) -> None:
        """End the work; what was running is queued and goes on at the next start."""
        await self._workshop.stop()

    # -- asking ---------------------------------------------------------------------------------

    async def submit(
        self, kind: str, title: str, request: Mapping[str, Any], dedupe_key: str, principal: Principal
    ) -> Job:
        """Queue a job, or return the open one for the same work (same `dedupe_key`)."""
        if kind not in self._workshop.kinds:
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
                    await record(self._events, session, row, principal.name, f"{principal.name} asked for it")
            except IntegrityError:
                LOG.debug("another server queued %s at the same moment", dedupe_key)
                continue  # that one is open now, and is returned
            self._workshop.wake()
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
                    with self._workshop.waiters.one(job_id) as over:
                        job = await self.get(job_id)
                        if job.state.is_over and self._workshop.running(job_id) is None:
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
                await record(self._events, session, row, principal.name, f"{principal.name} cancelled it")
            else:
                await store.change(session, job_id, [JobState.RUNNING], cancel_asked=True)
        if row is not None:
            if not keep:
                await self._workshop.discard(job_of(row))
            self._workshop.waiters.tell(job_id)
            return await self.get(job_id)
        if (running := self._workshop.running(job_id)) is not None:
            running.keep = keep
            running.cancel()
        self._workshop.wake()
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
                await record(self._events, session, row, principal.name, f"{principal.name} tried it again")
        except IntegrityError:
            raise JobNotRetryable("another job for the same work is already open", job=job_id) from None
        self._workshop.wake()
        return self._seen(row)

    async def remove(self, job_id: str, principal: Principal = SYSTEM) -> None:
        """Forget a job that is over, and what it left behind. Raises JobNotOver."""
        job = await self.get(job_id)
        self._may_change(job, principal)
        async with self._database.write() as session:
            row = await row_to_change(session, JobRow, job_id)
            if row is not None and not JobState(row.state).is_over:
                raise JobNotOver(job_id, JobState(row.state))
            if row is not None:
                await session.delete(row)
            same_work = await store.open_with_key(session, job.dedupe_key)
        if same_work is None and job.state is not JobState.SUCCEEDED:
            await self._workshop.discard(job)

    def _seen(self, row: JobRow) -> Job:
        job = job_of(row)
        running = self._workshop.running(job.id)
        return replace(job, progress=dict(running.progress.values)) if running else job

    def _may_change(self, job: Job, principal: Principal) -> None:
        if job.actor != principal.name:
            principal.require(Role.MANAGER, "change the jobs of others")
