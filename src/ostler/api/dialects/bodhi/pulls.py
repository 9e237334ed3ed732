"""Downloads: `/bodhi/v1/modelfiles/pull`. A download is a job of ours, with its id."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Response

from ostler.api.dialects.bodhi.door import BodhiBody, Paged, router
from ostler.api.dialects.bodhi.entries import MAIN
from ostler.api.dialects.bodhi.errors import FileAlreadyThere
from ostler.api.dialects.bodhi.files_here import find_file
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import InvalidField
from ostler.core.principals import Role
from ostler.core.states import JobState
from ostler.downloads.service import KIND
from ostler.hub.specs import check_relative, check_repo
from ostler.jobs.records import Job, JobNotFound

routes = router("downloads")

PullId = Annotated[str, Path(max_length=100)]
PredefinedName = Annotated[str, Path(max_length=200)]

STATUSES = {
    JobState.QUEUED: "pending",
    JobState.RUNNING: "downloading",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
MOST_OPEN = 1_000


class PullIn(BodhiBody):
    """Which file of which repo; its newest commit on main is taken."""

    repo: str
    filename: str


@routes.get("/bodhi/v1/modelfiles/pull", **needs(Role.POWER_USER))
async def list_pulls(rooms: Rooms, who: Who, page: Paged) -> dict[str, Any]:
    """Every download, newest first, whoever asked for it."""
    found = await rooms.jobs.list(kind=KIND, limit=page.page_size, offset=page.offset)
    return page.answer([_shown(job) for job in found.items], found.total)


@routes.post("/bodhi/v1/modelfiles/pull", status_code=201, **needs(Role.POWER_USER))
async def pull_file(rooms: Rooms, who: Who, body: PullIn, response: Response) -> dict[str, Any]:
    """Download a file (201); one that is open already is given with 200, one that is here is 400.

    After a failure the same request tries again, and goes on where that one ended.
    """
    repo, filename = check_repo(body.repo), check_relative(body.filename)
    if not filename.lower().endswith(".gguf"):
        raise InvalidField("filename", f"{filename[:200]!r} is no GGUF file")
    await _refuse_present(rooms, repo, filename)
    job = await _open(rooms, repo, filename)
    if job is not None:
        response.status_code = 200
        return _shown(job)
    return _shown(await rooms.downloads.pull(f"{repo}:{filename}", principal=who))


@routes.post("/bodhi/v1/modelfiles/pull/{id}/cancel", **needs(Role.POWER_USER))
async def cancel_pull(rooms: Rooms, who: Who, id: PullId) -> dict[str, Any]:
    """End a download; what it has fetched is removed."""
    job = await _get(rooms, id)
    return _shown(await rooms.jobs.cancel(job.id, who))


@routes.post("/bodhi/v1/modelfiles/pull/{id}/retry", **needs(Role.POWER_USER))
async def retry_pull(rooms: Rooms, who: Who, id: PullId) -> dict[str, Any]:
    """Try a failed or cancelled download again."""
    job = await _get(rooms, id)
    return _shown(await rooms.jobs.retry(job.id, who))


@routes.post("/bodhi/v1/modelfiles/pull/{id}/archive", **needs(Role.POWER_USER))
async def archive_pull(rooms: Rooms, who: Who, id: PullId) -> dict[str, Any]:
    """Take a download that is over off the list, with what a failed one left half done; files stay."""
    job = await _get(rooms, id)
    await rooms.jobs.remove(job.id, who)
    return {**_shown(job), "archived_at": rooms.clock.now()}


@routes.get("/bodhi/v1/modelfiles/pull/{id}", **needs(Role.POWER_USER))
async def show_pull(rooms: Rooms, who: Who, id: PullId) -> dict[str, Any]:
    """One download."""
    return _shown(await _get(rooms, id))


@routes.post("/bodhi/v1/modelfiles/pull/{alias:path}", status_code=201, **needs(Role.POWER_USER))
async def pull_alias(rooms: Rooms, who: Who, alias: PredefinedName, response: Response) -> dict[str, Any]:
    """Download what a predefined alias stands for; the alias itself is made when the file is here."""
    wanted = await rooms.predefined.get(alias)
    if rooms.models.find(alias) is not None:
        await _refuse_present(rooms, wanted.repo, wanted.file)
    before = await _open(rooms, wanted.repo, wanted.file, alias)
    if before is not None:
        response.status_code = 200
        return _shown(before)
    return _shown(await rooms.predefined_pulls.pull(alias, who))


async def _refuse_present(rooms: Services, repo: str, filename: str) -> None:
    """Raises FileAlreadyThere."""
    found = await find_file(rooms, repo, filename, MAIN)
    if found is not None and found.complete:
        raise FileAlreadyThere(
            f"file {filename!r} already exists in repo {repo!r} with snapshot {MAIN!r}",
            repo=repo,
            filename=filename,
        )


async def _open(rooms: Services, repo: str, filename: str, alias: str | None = None) -> Job | None:
    """The queued or running download of a file; with `alias` only one that makes this alias too."""
    for state in (JobState.RUNNING, JobState.QUEUED):
        for job in (await rooms.jobs.list(kind=KIND, state=state, limit=MOST_OPEN)).items:
            makes = (job.request.get("then") or {}).get("key")
            same = job.request["repo"] == repo and _asked_file(job) == filename
            if same and (alias is None or makes == alias):
                return job
    return None


async def _get(rooms: Services, id: str) -> Job:
    """The download with this id. Raises JobNotFound."""
    job = await rooms.jobs.get(id)
    if job.kind != KIND:
        raise JobNotFound(id)
    return job


def _asked_file(job: Job) -> str:
    """The file that was asked for, else the first of those that a quantization meant, else that itself."""
    selector = str(job.request["spec"]).partition("@")[0].rpartition(":")[2]
    is_file = selector.lower().endswith(".gguf")
    return selector if is_file else str(job.request.get("primary") or selector)


def _shown(job: Job) -> dict[str, Any]:
    planned = sum(file["size_bytes"] for file in job.request.get("files", ()))
    total = planned or job.progress.get("bytes_total") or None
    done = int(job.progress.get("bytes_done") or 0)
    is_done = job.state is JobState.SUCCEEDED
    if is_done:
        done, progress = total or done, 100
    else:  # 100 is said only once the file is in its place
        progress = min(99, done * 100 // total) if total else 0
    error = (job.error or {}).get("message") if job.state is JobState.FAILED else None
    return {
        "id": job.id,
        "repo": job.request["repo"],
        "filename": _asked_file(job),
        "status": STATUSES[job.state],
        "progress": progress,
        "size_downloaded": done,
        "size_total": total,
        "downloaded_bytes": done,
        "total_bytes": total,
        "error": error,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "updated_at": job.finished_at or job.started_at or job.created_at,
        "completed_at": job.finished_at if is_done else None,
    }
