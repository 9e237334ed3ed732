"""The use cases of downloads: plan one, pull one, pull what a tag means for llama.cpp."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ostler.core.clock import Clock
from ostler.core.disk import FULL, free_bytes, no_room
from ostler.core.errors import DiskFull, Offline
from ostler.core.events import EventLog
from ostler.core.principals import SYSTEM, Principal, Role
from ostler.core.settings import Settings
from ostler.downloads.errors import FREE_SPACE, DiskFailed
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
from ostler.downloads.turns import Turns
from ostler.hub.manifests import check_tag
from ostler.hub.service import Hub
from ostler.hub.specs import check_repo, parse_spec
from ostler.jobs.records import Job, Report
from ostler.jobs.service import Jobs
from ostler.library.layouts.llama_cache import flat_name
from ostler.library.service import Library

LOG = logging.getLogger(__name__)

KIND = "download"

Finisher = Callable[[Job, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Does what was asked for once the files are here; gets the job and its result, gives what to add to that."""


class Downloads:
    """Pulls models from the hub into the hub cache. Registers its kind of job when it is made.

    `token_of` gives the hub's token that a model (by its id) has of its own. A job remembers the model and
    asks for the token when it runs, so that no token is kept with it.
    """

    def __init__(
        self,
        jobs: Jobs,
        hub: Hub,
        library: Library,
        settings: Settings | Callable[[], Settings],
        events: EventLog,
        clock: Clock,
        token_of: Callable[[int], str | None] = lambda _: None,
        *,
        backoff_s: float = 0.5,
    ) -> None:
        self._jobs = jobs
        self._token_of = token_of
        self._backoff_s = backoff_s
        self._hub = hub
        self._library = library
        self._settings = settings if callable(settings) else lambda: settings
        self._finishers: dict[str, Finisher] = {}
        self._turns = Turns()
        jobs.register(KIND, self._run, slots=lambda: self._settings().download_jobs, discard=self._discard)

    async def plan(self, spec: str, *, principal: Principal, token: str | None = None) -> DownloadPlan:
        """What a pull of this spec would fetch. Raises what `Hub.resolve` raises.

        `token` is sent to the hub instead of the server's own.
        """
        principal.require(Role.USER, "look up models on the hub")
        settings, hub = self._settings(), self._hub.with_token(token)
        found = await hub.resolve(parse_spec(spec, endpoint=settings.hf_endpoint))
        return await asyncio.to_thread(
            make_plan, spec, found, settings.hub_cache_dir, settings.disk_reserve_bytes
        )

    def add_finisher(self, kind: str, finisher: Finisher) -> None:
        """Say what is done at the end of downloads that are asked for with `then={"kind": kind, ...}`."""
        self._finishers[kind] = finisher

    async def pull(
        self,
        spec: str,
        *,
        principal: Principal,
        then: Mapping[str, Any] | None = None,
        for_model: int | None = None,
    ) -> Job:
        """Queue the download of a spec, or return the open job for the same files.

        `then` is done when the files are here, and is part of the job: it is JSON, its `kind` names a
        finisher, its `key` tells it from others. With `for_model` the token that this model has of its own is
        used, if it has one. Raises what `plan` raises, and DiskFull before the first byte where there is no
        room.
        """
        principal.require(Role.POWER_USER, "download models")
        token = None if for_model is None else self._token_of(for_model)
        plan = await self.plan(spec, principal=principal, token=token)
        if not plan.fits_disk:
            raise no_room(plan.repo, plan.need_bytes, plan.free_bytes, plan.reserve_bytes, hint=FREE_SPACE)
        request, key = plan.to_request(), plan.dedupe_key
        if token is not None:
            request = {**request, "token_of": for_model}
        if then is not None:
            request, key = {**request, "then": dict(then)}, f"{key}#{then['kind']}:{then['key']}"
        return await self._jobs.submit(KIND, f"pull {spec}", request, key, principal)

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
        """The job: get the files, and do what was asked for beside."""
        request, flat = job.request, None
        if "files" not in request:
            report({"step": "asking the hub"})
            request, flat = await self._work_out(job)
            report({"files_key": _files_key(request)})  # by which `_discard` finds what was staged
        async with self._turns.alone(_files_key(request)):
            result = await self._fetch(request, flat, report)
        then = request.get("then")
        return {**result, **await self._finishers[then["kind"]](job, result)} if then else result

    async def _fetch(
        self, request: Mapping[str, Any], flat: FlatPlace | None, report: Report
    ) -> Mapping[str, Any]:
        """Fetch what is missing, place it, tell the library."""
        settings = self._settings()
        order = self._order(request, settings)
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
            raise no_room(plan.repo, plan.need_bytes, plan.free_bytes, plan.reserve_bytes, hint=FREE_SPACE)
        return plan.to_request(), flat

    async def _name_flat(self, flat: FlatPlace, placing: Placing, etags: Mapping[str, str]) -> None:
        """Give the files their names in the flat cache, and list that. Raises DiskFull, DiskFailed."""
        try:
            await asyncio.to_thread(flat.place, placing, etags)
        except OSError as error:
            if error.errno in FULL:
                raise DiskFull(
                    f"the disk is full while naming {flat.repo} in {flat.folder}", hint=FREE_SPACE
                ) from error
            raise DiskFailed(f"{flat.folder} cannot be written: {error.strerror}", repo=flat.repo) from error
        await self._library.list_llama_cache()

    def _order(self, request: Mapping[str, Any], settings: Settings) -> Order:
        repo, commit, revision, primary = (request[k] for k in ("repo", "commit", "revision", "primary"))
        owner = request.get("token_of")
        hub = self._hub.with_token(None if owner is None else self._token_of(owner))
        return Order(
            repo=repo,
            commit=commit,
            revision=revision,
            primary=primary,
            files=ordered_files(request, lambda path: self._hub.file_url(repo, commit, path)),
            endpoint=self._hub.endpoint,
            repo_dir=str(repo_folder(settings.hub_cache_dir, repo)),
            staging_dir=str(staging_folder(settings.hub_cache_dir, dedupe_key(repo, revision, primary))),
            token=hub.token(),
            connections=settings.download_connections,
            rate_limit=settings.download_rate_limit,
            retries=settings.download_retries,
            timeout_s=settings.download_timeout_s,
            backoff_s=self._backoff_s,
        )

    async def _discard(self, job: Job) -> None:
        """Remove the staged files of a job that was cancelled or forgotten, unless another is at them."""
        if (key := job.progress.get("files_key")) is None:
            if "files" not in job.request:
                return  # it ended before it was known what it wants
            key = _files_key(job.request)
        if not self._turns.wanted(key):
            await asyncio.to_thread(_remove_staging, staging_folder(self._settings().hub_cache_dir, key))


def _files_key(request: Mapping[str, Any]) -> str:
    """The same for all jobs that want the same files, whatever is done with them then."""
    return dedupe_key(request["repo"], request["revision"], request["primary"])


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
