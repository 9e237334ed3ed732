"""The use cases of downloads: plan one, pull one, pull what a tag means for llama.cpp."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ostler.core.clock import Clock
from ostler.core.disk import FULL, free_bytes
from ostler.core.errors import DiskFull, Offline
from ostler.core.events import EventLog
from ostler.core.principals import SYSTEM, Principal, Role
from ostler.core.settings import Settings
from ostler.downloads.errors import DiskFailed, disk_full
from ostler.downloads.llama_cache import FlatPlace
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
from ostler.hub.manifests import check_tag
from ostler.hub.service import Hub
from ostler.hub.specs import check_repo, parse_spec
from ostler.jobs.records import Job, Report
from ostler.jobs.service import Jobs
from ostler.library.layouts.llama_cache import flat_name
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
        self._staged: Counter[str] = Counter()
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
            raise _no_room(plan.repo, plan.need_bytes, plan.free_bytes, plan.reserve_bytes)
        return await self._jobs.submit(KIND, f"pull {spec}", plan.to_request(), plan.dedupe_key, principal)

    async def pull_tag(self, repo: str, tag: str, *, principal: Principal) -> Job:
        """Queue what llama.cpp's `-hf repo:tag` means, for the flat cache; or give the open job for it.

        The hub is asked when the job runs, so that it is a job that fails where there is no such thing.
        Raises BadSpec.
        """
        repo, tag = check_repo(repo), check_tag(tag)
        return await self._submit_later("llama-cache", f"{repo}:{tag}", repo, tag, principal)

    async def pull_later(self, spec: str, *, principal: Principal) -> Job:
        """Like `pull`, but the hub is asked when the job runs. Raises BadSpec."""
        parsed = parse_spec(spec, endpoint=self._settings().hf_endpoint)
        tag = parsed.revision or parsed.selector or "main"
        return await self._submit_later("hub-cache", spec, parsed.repo, tag, principal)

    async def _submit_later(self, target: str, spec: str, repo: str, tag: str, principal: Principal) -> Job:
        principal.require(Role.POWER_USER, "download models")
        request = {"spec": spec, "repo": repo, "tag": tag, "target": target}
        key = f"download:{target}:{spec.lower()}"
        return await self._jobs.submit(KIND, f"pull {spec}", request, key, principal)

    async def _run(self, job: Job, report: Report) -> Mapping[str, Any]:
        """The job: fetch what is missing, place it, tell the library."""
        request, flat = job.request, None
        if "files" not in request:
            report({"step": "asking the hub"})
            request, flat = await self._work_out(job)
        settings = self._settings()
        order = self._order(request, settings)
        staging = Path(order.staging_dir)
        report({"staging": staging.name})
        self._staged[staging.name] += 1
        try:
            return await self._carry_out(order, request, flat, settings, report)
        finally:
            self._staged[staging.name] -= 1

    async def _work_out(self, job: Job) -> tuple[Mapping[str, Any], FlatPlace | None]:
        """What a job fetches that was asked for by name only. Raises what `Hub` raises, and DiskFull."""
        settings, spec = self._settings(), job.request["spec"]
        flat = None
        if job.request["target"] == "llama-cache":
            repo, tag = job.request["repo"], job.request["tag"]
            tagged = await self._hub.tagged(repo, tag)
            folder = settings.llama_cache_dir
            plan = await asyncio.to_thread(
                make_plan,
                spec,
                tagged.found,
                settings.hub_cache_dir,
                settings.disk_reserve_bytes,
                lambda path: folder / flat_name(repo, path),
            )
            files = ordered_files(plan.to_request(), lambda path: path)
            flat = FlatPlace(folder, repo, tag, plan.commit, files, tagged.manifest, tagged.preset)
        else:
            plan = await self.plan(spec, principal=SYSTEM)
        if not plan.fits_disk:
            raise _no_room(plan.repo, plan.need_bytes, plan.free_bytes, plan.reserve_bytes)
        return plan.to_request(), flat

    async def _carry_out(
        self,
        order: Order,
        request: Mapping[str, Any],
        flat: FlatPlace | None,
        settings: Settings,
        report: Report,
    ) -> Mapping[str, Any]:
        placing, staging = Placing(Path(order.repo_dir), order.commit), Path(order.staging_dir)
        total = sum(file.size for file in order.files)
        fetched: Mapping[str, Any] = {"fetched_bytes": 0, "etags": {}}
        complete = await asyncio.to_thread(placing.is_complete, order.files, order.revision)
        if not complete:
            if settings.offline:
                raise Offline(f"{order.repo} is not here and would have to be fetched")
            await asyncio.to_thread(_check_room, placing, staging, order.files, settings)
            fetched = await fetch(order, report, lambda: self._settings().download_rate_limit)
            await asyncio.to_thread(_remove_staging, staging)
        named = flat is None or await asyncio.to_thread(flat.is_complete, placing)
        if flat is not None and not named:
            await self._name_flat(flat, placing, fetched.get("etags") or {})
        if not (complete and named):
            await self._library.refresh()
        report({"bytes_done": total, "bytes_total": total, "eta_s": 0, "step": "done"})
        place = placing.pointer if flat is None else flat.name_of
        target = target_of(placing, order.primary, request["format"])
        return {
            "path": str(target if flat is None else flat.name_of(flat.files[0])),
            "repo": order.repo,
            "revision": order.revision,
            "commit": order.commit,
            "files": [str(place(file)) for file in order.files],
            "bytes": total,
            "fetched_bytes": fetched["fetched_bytes"],
            "already_here": complete and named,
        }

    async def _name_flat(self, flat: FlatPlace, placing: Placing, etags: Mapping[str, str]) -> None:
        """Give the files their names in the flat cache, and list that. Raises DiskFull, DiskFailed."""
        try:
            await asyncio.to_thread(flat.place, placing, etags)
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(f"the disk is full while naming {flat.repo} in {flat.folder}") from error
            raise DiskFailed(f"{flat.folder} cannot be written: {error.strerror}", repo=flat.repo) from error
        await self._library.list_llama_cache()

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
        """Remove the staged files of a job that was cancelled or forgotten, unless another works there."""
        folder = staging_folder(self._settings().hub_cache_dir, job.dedupe_key)
        if name := job.progress.get("staging"):
            folder = folder.parent / Path(name).name
        if not self._staged[folder.name]:
            await asyncio.to_thread(_remove_staging, folder)


def _check_room(placing: Placing, staging: Path, files: tuple[OrderedFile, ...], settings: Settings) -> None:
    """The disk may have filled since the plan was made. Raises DiskFull."""
    need, free = missing_bytes(placing, staging, files), free_bytes(settings.hub_cache_dir)
    if need and need + settings.disk_reserve_bytes > free:
        raise _no_room(placing.repo_dir.name, need, free, settings.disk_reserve_bytes)


def _no_room(what: str, need: int, free: int, reserve: int) -> DiskFull:
    message = (
        f"{what} needs {_gb(need)}, {_gb(free)} is free and {_gb(reserve)} of it is to stay free "
        "(setting disk_reserve_bytes)"
    )
    return disk_full(message, need_bytes=need, free_bytes=free, reserve_bytes=reserve)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


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
