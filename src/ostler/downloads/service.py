"""The use cases of downloads: plan one, pull one."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ostler.core.clock import Clock
from ostler.core.disk import free_bytes, no_room
from ostler.core.errors import Offline
from ostler.core.events import EventLog
from ostler.core.principals import Principal, Role
from ostler.core.settings import Settings
from ostler.downloads.errors import FREE_SPACE
from ostler.downloads.order import Order, OrderedFile
from ostler.downloads.placing import Placing, repo_folder
from ostler.downloads.plan import (
    DownloadPlan,
    dedupe_key,
    make_plan,
    missing_bytes,
    ordered_files,
    staging_folder,
    target_of,
)
from ostler.downloads.process import fetch
from ostler.hub.service import Hub
from ostler.hub.specs import parse_spec
from ostler.jobs.records import Job, Report
from ostler.jobs.service import Jobs
from ostler.library.service import Library

LOG = logging.getLogger(__name__)

KIND = "download"


class Downloads:
    """Pulls models from the hub into the hub cache. Registers its kind of job when it is made."""

    def __init__(
        self,
        jobs: Jobs,
        hub: Hub,
        library: Library,
        settings: Settings | Callable[[], Settings],
        events: EventLog,
        clock: Clock,
        *,
        backoff_s: float = 0.5,
    ) -> None:
        self._jobs = jobs
        self._backoff_s = backoff_s
        self._hub = hub
        self._library = library
        self._settings = settings if callable(settings) else lambda: settings
        jobs.register(KIND, self._run, slots=lambda: self._settings().download_jobs, discard=self._discard)

    async def plan(self, spec: str, *, principal: Principal) -> DownloadPlan:
        """What a pull of this spec would fetch. Raises what `Hub.resolve` raises."""
        principal.require(Role.USER, "look up models on the hub")
        settings = self._settings()
        found = await self._hub.resolve(parse_spec(spec, endpoint=settings.hf_endpoint))
        return await asyncio.to_thread(
            make_plan, spec, found, settings.hub_cache_dir, settings.disk_reserve_bytes
        )

    async def pull(self, spec: str, *, principal: Principal) -> Job:
        """Queue the download of a spec, or return the open job for the same files.

        Raises what `plan` raises, and DiskFull before the first byte when there is no room.
        """
        principal.require(Role.POWER_USER, "download models")
        plan = await self.plan(spec, principal=principal)
        if not plan.fits_disk:
            raise no_room(plan.repo, plan.need_bytes, plan.free_bytes, plan.reserve_bytes, hint=FREE_SPACE)
        return await self._jobs.submit(KIND, f"pull {spec}", plan.to_request(), plan.dedupe_key, principal)

    async def _run(self, job: Job, report: Report) -> Mapping[str, Any]:
        """The job: fetch what is missing, place it, tell the library."""
        settings, request = self._settings(), job.request
        order = self._order(request, settings)
        placing, staging = Placing(Path(order.repo_dir), order.commit), Path(order.staging_dir)
        total = sum(file.size for file in order.files)
        complete = await asyncio.to_thread(placing.is_complete, order.files, order.revision)
        if not complete:
            if settings.offline:
                raise Offline(f"{order.repo} is not here and would have to be fetched")
            await asyncio.to_thread(_check_room, placing, staging, order.files, settings)
            said = await fetch(order, report, lambda: self._settings().download_rate_limit)
            await asyncio.to_thread(_remove_staging, staging)
            await self._library.refresh()
        report({"bytes_done": total, "bytes_total": total, "eta_s": 0, "step": "done"})
        return {
            "path": str(target_of(placing, order.primary, request["format"])),
            "repo": order.repo,
            "revision": order.revision,
            "commit": order.commit,
            "files": [str(placing.pointer(file)) for file in order.files],
            "bytes": total,
            "fetched_bytes": 0 if complete else said["fetched_bytes"],
            "already_here": complete,
        }

    def _order(self, request: Mapping[str, Any], settings: Settings) -> Order:
        repo, commit, revision, primary = (request[k] for k in ("repo", "commit", "revision", "primary"))
        return Order(
            repo=repo,
            commit=commit,
            revision=revision,
            primary=primary,
            files=ordered_files(request, lambda path: self._hub.file_url(repo, commit, path)),
            endpoint=self._hub.endpoint,
            repo_dir=str(repo_folder(settings.hub_cache_dir, repo)),
            staging_dir=str(staging_folder(settings.hub_cache_dir, dedupe_key(repo, revision, primary))),
            token=self._hub.token(),
            connections=settings.download_connections,
            rate_limit=settings.download_rate_limit,
            retries=settings.download_retries,
            timeout_s=settings.download_timeout_s,
            backoff_s=self._backoff_s,
        )

    async def _discard(self, job: Job) -> None:
        """Remove the staged files of a job that was cancelled or forgotten."""
        await asyncio.to_thread(
            _remove_staging, staging_folder(self._settings().hub_cache_dir, job.dedupe_key)
        )


def _check_room(placing: Placing, staging: Path, files: tuple[OrderedFile, ...], settings: Settings) -> None:
    """The disk may have filled since the plan was made. Raises DiskFull."""
    need, free = missing_bytes(placing, staging, files), free_bytes(settings.hub_cache_dir)
    if need and need + settings.disk_reserve_bytes > free:
        raise no_room(placing.repo_dir.name, need, free, settings.disk_reserve_bytes, hint=FREE_SPACE)


def _remove_staging(folder: Path) -> None:
    """Remove one download's staging folder, and the common one when it is empty."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    try:
        folder.parent.rmdir()
    except OSError:
        LOG.debug("other downloads are still in %s", folder.parent)
