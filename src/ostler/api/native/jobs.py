"""Jobs: background work that outlives a restart of the server."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Listing, Out, PageOut, page_out, shape_of
from ostler.core.errors import InvalidField
from ostler.core.principals import Role
from ostler.core.states import JobState
from ostler.jobs.records import Job

routes = router("jobs")

JobId = Annotated[str, Path(max_length=100)]


@shape_of(Job, without=("dedupe_key",))
class JobOut(Out):
    """A job with its progress: bytes_done, bytes_total, current_file, rate_bytes_per_s, eta_s, step."""


@routes.get("/jobs", response_model=PageOut[JobOut], **needs(Role.USER))
async def list_jobs(
    rooms: Rooms,
    who: Who,
    page: Listing,
    kind: Annotated[str | None, Query(max_length=50)] = None,
    state: Annotated[JobState | None, Query()] = None,
) -> Any:
    """Every job, newest first."""
    if page.sort is not None and (page.sort, page.descending) != ("created_at", True):
        raise InvalidField("sort", "jobs are listed newest first", hint="Leave it out, or sort=-created_at.")
    return page_out(await rooms.jobs.list(kind=kind, state=state, **page.part))


@routes.get("/jobs/{job_id}", response_model=JobOut, **needs(Role.USER))
async def show_job(rooms: Rooms, who: Who, job_id: JobId) -> Any:
    """One job."""
    return await rooms.jobs.get(job_id)


@routes.post("/jobs/{job_id}/cancel", response_model=JobOut, **needs(Role.POWER_USER))
async def cancel_job(
    rooms: Rooms,
    who: Who,
    job_id: JobId,
    keep: Annotated[bool, Query(description="Keep what was done so far for the next try.")] = False,
) -> Any:
    """End a job."""
    return await rooms.jobs.cancel(job_id, who, keep=keep)


@routes.post("/jobs/{job_id}/retry", response_model=JobOut, **needs(Role.POWER_USER))
async def retry_job(rooms: Rooms, who: Who, job_id: JobId) -> Any:
    """Run a failed or cancelled job again; a download goes on where it was."""
    return await rooms.jobs.retry(job_id, who)


@routes.delete("/jobs/{job_id}", status_code=204, **needs(Role.POWER_USER))
async def remove_job(rooms: Rooms, who: Who, job_id: JobId) -> None:
    """Take a job that is over off the list."""
    await rooms.jobs.remove(job_id, who)
