"""The events of jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.events import EventLog, NewEvent
from ostler.core.principals import SYSTEM
from ostler.jobs.records import Job, ProgressData
from ostler.jobs.tables import JobRow


async def record(events: EventLog, session: AsyncSession, row: JobRow, actor: str, cause: str) -> None:
    """Record the state that the row has now, within the caller's transaction."""
    data: dict[str, Any] = {"kind": row.kind, "attempts": row.attempts}
    if row.error is not None:
        data["error"] = row.error
    if row.result is not None:
        data["result"] = row.result
    await events.add(session, NewEvent(f"job.{row.state}", "job", row.id, row.title, actor, cause, data))


def announce(events: EventLog, job: Job, news: ProgressData) -> None:
    """Tell of progress; it is not kept."""
    data = {"kind": job.kind, "progress": dict(news)}
    events.announce(NewEvent("job.progress", "job", job.id, job.title, SYSTEM.name, "", data))
