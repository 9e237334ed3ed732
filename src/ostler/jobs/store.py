"""The statements on the table of jobs; each change is conditional on the state that it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.paging import Page
from ostler.core.queries import page_of
from ostler.core.states import JobState
from ostler.jobs.tables import JobRow

OPEN = (JobState.QUEUED, JobState.RUNNING)


def new_row(
    job_id: str,
    kind: str,
    title: str,
    request: Mapping[str, Any],
    dedupe_key: str,
    *,
    actor: str,
    node: str,
    at: datetime,
) -> JobRow:
    """The row of a job that waits to be run."""
    return JobRow(
        id=job_id,
        kind=kind,
        title=title,
        dedupe_key=dedupe_key,
        state=JobState.QUEUED,
        request=dict(request),
        progress={},
        result=None,
        error=None,
        actor=actor,
        attempts=0,
        cancel_asked=False,
        node=node,
        owner=None,
        created_at=at,
        started_at=None,
        finished_at=None,
    )


async def change(session: AsyncSession, job_id: str, was: Sequence[JobState], **values: Any) -> JobRow | None:
    """Change a job that is in one of the states `was`; None when it is not (any more)."""
    statement = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_([str(state) for state in was]))
    done = await session.execute(statement.values(**values), execution_options={"synchronize_session": False})
    if not isinstance(done, CursorResult) or done.rowcount != 1:
        return None
    return await session.get(JobRow, job_id, populate_existing=True)


async def claim(session: AsyncSession, job_id: str, owner: str, at: datetime) -> JobRow | None:
    """Make a queued job ours and running; None when another server was faster."""
    return await change(
        session,
        job_id,
        [JobState.QUEUED],
        state=JobState.RUNNING,
        owner=owner,
        attempts=JobRow.attempts + 1,
        started_at=at,
        finished_at=None,
    )


async def open_with_key(session: AsyncSession, dedupe_key: str) -> JobRow | None:
    """The job for the same work that is not over."""
    query = select(JobRow).where(JobRow.dedupe_key == dedupe_key, JobRow.state.in_([str(s) for s in OPEN]))
    return (await session.scalars(query)).one_or_none()


async def queued(session: AsyncSession, kind: str, node: str, limit: int) -> list[str]:
    """Ids of the jobs that wait on this node, those that came first before the others."""
    query = select(JobRow.id).where(JobRow.kind == kind, JobRow.node == node, JobRow.state == JobState.QUEUED)
    return list(await session.scalars(query.order_by(JobRow.created_at, JobRow.id).limit(limit)))


async def running(session: AsyncSession, node: str) -> list[JobRow]:
    """The jobs that run on this node, whichever server runs them."""
    query = select(JobRow).where(JobRow.node == node, JobRow.state == JobState.RUNNING)
    return list(await session.scalars(query))


async def page(
    session: AsyncSession, kind: str | None, state: JobState | None, limit: int, offset: int
) -> Page[JobRow]:
    """One page, newest first."""
    query = select(JobRow)
    if kind is not None:
        query = query.where(JobRow.kind == kind)
    if state is not None:
        query = query.where(JobRow.state == state)
    newest_first = (JobRow.created_at.desc(), JobRow.id.expression)
    return await page_of(session, query, *newest_first, limit=limit, offset=offset)
