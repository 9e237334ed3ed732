"""Jobs on a real database, with runners that are held still by events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.jobs.records import Job, Report
from ostler.jobs.service import Jobs


class HeldRunner:
    """A runner that says when it has begun and ends when it is told to."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Job] = asyncio.Queue()
        self.discarded: list[str] = []
        self.reports: dict[str, Report] = {}
        self.running = 0
        self.most = 0
        self._results: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    async def __call__(self, job: Job, report: Report) -> Mapping[str, Any]:
        result: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._results[job.id] = result
        self.reports[job.id] = report
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.put_nowait(job)
        try:
            return await result
        finally:
            self.running -= 1

    async def discard(self, job: Job) -> None:
        self.discarded.append(job.id)

    def succeed(self, job: Job, **result: Any) -> None:
        self._results[job.id].set_result(result)

    def fail(self, job: Job, error: Exception) -> None:
        self._results[job.id].set_exception(error)

    async def next_begun(self) -> Job:
        async with asyncio.timeout(10):
            return await self.begun.get()


Server = Callable[..., Awaitable[Jobs]]


@pytest.fixture
def runner() -> HeldRunner:
    return HeldRunner()


@asynccontextmanager
async def serving(
    database: Database, runner: HeldRunner, *, server_id: str = "one", slots: Callable[[], int] = lambda: 2
) -> AsyncIterator[Jobs]:
    """One server's jobs, started and stopped."""
    events = EventLog(database, Clock())
    jobs = Jobs(database, events, Clock(), "here", server_id)
    jobs.register("work", runner, slots=slots, discard=runner.discard)
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.stop()
        events.close()


@pytest.fixture
async def jobs(database: Database, events: EventLog, runner: HeldRunner) -> AsyncIterator[Jobs]:
    jobs = Jobs(database, events, Clock(), "here", "one")
    jobs.register("work", runner, slots=lambda: 2, discard=runner.discard)
    await jobs.start()
    yield jobs
    await jobs.stop()
