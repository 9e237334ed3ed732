"""Downloads and cached models, under the paths of both of llamactl's generations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Path, Query

from ostler.api.dialects.base import Refused
from ostler.api.dialects.llamactl.door import LlamactlBody, LlamactlRouter, management
from ostler.api.dialects.llamactl.nodes import LocalNode
from ostler.api.native.model_files import in_use
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import Conflict, NotFound
from ostler.core.states import JobState
from ostler.downloads.service import KIND
from ostler.hub.errors import BadSpec
from ostler.hub.manifests import DEFAULT_TAG, check_tag
from ostler.hub.specs import check_repo, check_revision, parse_spec
from ostler.jobs.records import Job, JobNotFound
from ostler.library.cached_models import CachedModel

routes = LlamactlRouter("models")

FIRST = "/api/v1/backends/llama-cpp/models"
LATER = "/api/v1/models"
"""Where llamactl has the same things until 0.19 and from 0.20 on."""

KEPT = timedelta(hours=24)
"""How long a job that is over is listed."""
MANY = 100_000

WORDS = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "downloading",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}

JobId = Annotated[str, Path(max_length=100)]
Text = Annotated[str, Query(max_length=500)]


class ModelBusy(Conflict):
    """A download of the model is not over."""


class CannotCancel(Conflict):
    """The job is over already."""


class NoSuchJob(NotFound):
    """No download has this id."""

    hint = "A job that is over is kept until it is forgotten: see GET .../jobs"


class Download(LlamactlBody):
    """What to download: `org/model` or `org/model:tag`."""

    repo: str = ""
    format: str = "gguf"


@routes.at("POST", f"{FIRST}/download", f"{LATER}/download", status_code=202, **management())
async def start_download(rooms: Rooms, who: Who, node: LocalNode, body: Download) -> dict[str, str]:
    """Queue a download. What the hub thinks of it, the job says."""
    repo, tag = _repo_and_tag(body.repo)
    match body.format:
        case "gguf":
            tag = _checked(lambda: check_tag(tag or DEFAULT_TAG))
            job = await rooms.downloads.pull_tag(repo, tag, principal=who)
        case "safetensors":
            tag = "main" if tag in ("", DEFAULT_TAG) else _checked(lambda: check_revision(tag))
            job = await rooms.downloads.pull_later(f"{repo}:safetensors@{tag}", principal=who)
        case unknown:
            raise Refused("invalid_request", f"format must be 'gguf' or 'safetensors', not {unknown[:100]!r}")
    return {"job_id": job.id, "repo": repo, "tag": tag}


@routes.group_root("GET", FIRST, LATER, **management())
async def list_models(rooms: Rooms, node: LocalNode) -> list[dict[str, Any]]:
    """Every model in the caches, by repo and tag."""
    return [_model(model, node) for model in await rooms.cached.list()]


@routes.group_root("DELETE", FIRST, LATER, status_code=204, **management())
async def delete_model(rooms: Rooms, who: Who, node: LocalNode, repo: Text = "", tag: Text = "") -> None:
    """Delete one tag from the caches, or every tag of the repo. Its files go, but those that others need."""
    if not repo:
        raise Refused("invalid_request", "repo is required")
    await _refuse_while_downloading(rooms, repo, tag)
    await rooms.cached.delete(repo, tag or None, await in_use(rooms), who)


@routes.at("GET", f"{FIRST}/jobs", f"{LATER}/jobs", **management())
async def list_jobs(rooms: Rooms, node: LocalNode) -> dict[str, Any]:
    """The downloads that are not over, and those that ended within a day; the newest first."""
    jobs = (await rooms.jobs.list(kind=KIND, limit=MANY)).items
    since = rooms.clock.now() - KEPT
    return {"jobs": [_job(job) for job in jobs if job.finished_at is None or job.finished_at > since]}


@routes.at("GET", f"{FIRST}/jobs/{{job_id}}", f"{LATER}/jobs/{{job_id}}", **management())
async def show_job(rooms: Rooms, node: LocalNode, job_id: JobId) -> dict[str, Any]:
    """One download."""
    return _job(await _find(rooms, job_id))


@routes.at("DELETE", f"{FIRST}/jobs/{{job_id}}", status_code=204, **management())
async def cancel_job(rooms: Rooms, who: Who, node: LocalNode, job_id: JobId) -> None:
    """Cancel a download that is not over."""
    job = await _find(rooms, job_id)
    if job.state.is_over:
        raise CannotCancel(f"cannot cancel job with status: {WORDS[job.state]}", job=job.id)
    await rooms.jobs.cancel(job.id, who)


@routes.at("DELETE", f"{LATER}/jobs/{{job_id}}", status_code=204, **management())
async def cancel_or_forget_job(rooms: Rooms, who: Who, node: LocalNode, job_id: JobId) -> None:
    """Cancel a download that is not over; forget one that is. Its files stay."""
    job = await _find(rooms, job_id)
    if job.state.is_over:
        await rooms.jobs.remove(job.id, who)
    else:
        await rooms.jobs.cancel(job.id, who)


def _repo_and_tag(text: str) -> tuple[str, str]:
    """`org/model[:tag]`, cut at the last colon. Raises Refused."""
    if not text.strip():
        raise Refused("invalid_request", "repo is required")
    repo, colon, tag = text.strip().rpartition(":")
    if not colon:
        repo, tag = tag, ""
    return _checked(lambda: check_repo(repo)), tag


def _checked(check: Callable[[], str]) -> str:
    try:
        return check()
    except BadSpec as error:
        raise Refused(
            "invalid_request",
            f"repo must be in format 'org/model' or 'org/model:tag': {error.message}",
            hint="Such as bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
        ) from error


async def _refuse_while_downloading(rooms: Services, repo: str, tag: str) -> None:
    """Raise ModelBusy where a download of the same is queued or running."""
    for state in (JobState.QUEUED, JobState.RUNNING):
        for job in (await rooms.jobs.list(kind=KIND, state=state, limit=MANY)).items:
            its_repo, its_tag = _meant(job)
            if its_repo.lower() == repo.lower() and (not tag or its_tag.lower() == tag.lower()):
                raise ModelBusy(
                    f"{its_repo}:{its_tag} is being downloaded",
                    hint=f"Cancel the job {job.id} first, or wait for its end.",
                    job=job.id,
                )


def _meant(job: Job) -> tuple[str, str]:
    """Repo and tag of a download, also of one that another door asked for."""
    request = job.request
    if tag := request.get("tag"):
        return str(request["repo"]), str(tag)
    try:
        spec = parse_spec(str(request.get("spec", "")))
    except BadSpec:  # an address on a mirror
        return str(request.get("repo", "")), DEFAULT_TAG
    return spec.repo, spec.selector or spec.revision or DEFAULT_TAG


async def _find(rooms: Services, job_id: str) -> Job:
    """The download with this id. Raises NoSuchJob, for a job that is no download too."""
    try:
        job = await rooms.jobs.get(job_id)
    except JobNotFound as error:
        raise NoSuchJob(f"job not found: {job_id}", job=job_id) from error
    if job.kind != KIND:
        raise NoSuchJob(f"job not found: {job_id}", job=job_id)
    return job


def _model(model: CachedModel, node: str) -> dict[str, Any]:
    """With the fields of llamactl's document and of its program."""
    files = [
        {
            "name": file.name,
            "path": file.path,
            "size": file.size_bytes,
            "size_bytes": file.size_bytes,
            "modified": file.modified_at_s,
            "type": file.kind,
        }
        for file in model.files
    ]
    return {
        "node": node,
        "repo": model.repo,
        "tag": model.tag,
        "files": files,
        "total_size": model.size_bytes,
        "size_bytes": model.size_bytes,
        "file_count": len(files),
    }


def _job(job: Job) -> dict[str, Any]:
    repo, tag = _meant(job)
    progress = job.progress
    told: dict[str, Any] = {
        "id": job.id,
        "repo": repo,
        "tag": tag,
        "status": WORDS[job.state],
        "progress": {
            "bytes_downloaded": progress.get("bytes_done") or 0,
            "total_bytes": progress.get("bytes_total") or 0,
            "current_file": str(progress.get("current_file") or "").rpartition("/")[2],
        },
        "created_at": int(job.created_at.timestamp()),
    }
    if job.error is not None:
        told["error"] = job.error["message"]
    if job.finished_at is not None:
        told["completed_at"] = int(job.finished_at.timestamp())
    if job.result is not None and job.state is JobState.SUCCEEDED:
        told["model_path"] = job.result["path"]
    return told
