"""What a job is, and what can go wrong when asking for one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ostler.core.errors import Conflict, NotFound, OstlerError
from ostler.core.states import JobState
from ostler.jobs.tables import JobRow

ProgressData = Mapping[str, Any]
"""bytes_done, bytes_total, current_file, rate_bytes_per_s, eta_s, step: each only where it is known."""

Report = Callable[[ProgressData], None]
"""Called by a runner, on the event loop, as often as it likes; the newest values replace older ones."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of background work.

    `dedupe_key`: at most one job that is not over has it. `attempts` counts how often it was begun.
    `error` is {code, message, hint}; `result` is what the runner returned.
    """

    id: str
    kind: str
    title: str
    dedupe_key: str
    state: JobState
    request: Mapping[str, Any]
    progress: ProgressData
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    actor: str
    attempts: int
    node: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


Runner = Callable[[Job, Report], Awaitable[Mapping[str, Any]]]
"""Does the work and returns the result (JSON-ready). It is ended by task cancellation."""

Discard = Callable[[Job], Awaitable[None]]
"""Removes what an ended job left behind, after it was cancelled or its row was removed."""


class JobNotFound(NotFound):
    """There is no job with this id."""

    hint = "See all jobs with: ostler jobs"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id}", job=job_id)


class JobNotOver(Conflict):
    """The job is still queued or running."""

    def __init__(self, job_id: str, state: JobState) -> None:
        super().__init__(
            f"the job {job_id} is {state}", hint=f"Cancel it first: ostler jobs cancel {job_id}", job=job_id
        )


class JobNotRetryable(Conflict):
    """Only a failed or cancelled job can be tried again, and only one for the same work at a time."""


def job_of(row: JobRow) -> Job:
    """The value of a row."""
    return Job(
        id=row.id,
        kind=row.kind,
        title=row.title,
        dedupe_key=row.dedupe_key,
        state=JobState(row.state),
        request=row.request,
        progress=row.progress,
        result=row.result,
        error=row.error,
        actor=row.actor,
        attempts=row.attempts,
        node=row.node,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def error_of(error: BaseException) -> dict[str, Any]:
    """What is stored of a failure: {code, message, hint}, for people and programs."""
    if isinstance(error, OstlerError):
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return {
        "code": "internal",
        "message": f"unexpected {type(error).__name__}: {error}",
        "hint": "The server's log has the details.",
    }
