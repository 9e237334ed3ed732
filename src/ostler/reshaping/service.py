"""The use cases: merge a model's parts into one file, split one file into parts."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ostler.core.disk import free_bytes, no_room
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from ostler.core.settings import Settings
from ostler.jobs.child import ChildEnded, run_child
from ostler.jobs.records import Job, Report
from ostler.jobs.service import Jobs
from ostler.library.assembly import stem_of
from ostler.library.errors import BrokenFile, UnsafePath
from ostler.library.filesets import FileSet
from ostler.library.paths import is_inside, safe_join
from ostler.library.service import Library
from ostler.reshaping.copying import is_same
from ostler.reshaping.errors import NameTaken, NothingToMerge, ReshapingFailed, error_from
from ostler.reshaping.layout import NewFile
from ostler.reshaping.order import STAGING, Order

MERGE, SPLIT = "merge", "split"


class Reshaping:
    """Makes new GGUF files of old ones. Registers its kinds of jobs when it is made."""

    def __init__(self, jobs: Jobs, library: Library, settings: Callable[[], Settings]) -> None:
        self._jobs = jobs
        self._library = library
        self._settings = settings
        for kind in (MERGE, SPLIT):
            jobs.register(kind, self._run, slots=lambda: 1, discard=self._discard)

    async def merge(self, files: FileSet, principal: Principal, *, to: Path | None, name: str | None) -> Job:
        """Queue the making of one file from a model's parts; the parts stay.

        `to` is the folder for it, by default the setting `reshaped_dir`; `name` is without its ending.
        Raises NotAllowed, NothingToMerge, BrokenFile (a part is missing), NameTaken, DiskFull, InvalidField.
        """
        principal.require(Role.MANAGER, "merge model files")
        parts = _parts(files)
        if len(parts) < 2:
            raise NothingToMerge(
                f"{files.name} is in one file already", hint=f"Use it as it is: {files.path}"
            )
        order = Order(MERGE, tuple(map(str, parts)), name or stem_of(files.path.name), "", "")
        return await self._queue(order, to, principal)

    async def split(
        self,
        files: FileSet,
        principal: Principal,
        *,
        max_bytes: int | None = None,
        max_tensors: int | None = None,
        to: Path | None,
        name: str | None,
    ) -> Job:
        """Queue the making of parts from a model in one file; it stays.

        Exactly one of `max_bytes` (of tensor data in a part) and `max_tensors`. Raises as `merge` does.
        """
        principal.require(Role.MANAGER, "split model files")
        if (max_bytes is None) == (max_tensors is None):
            raise InvalidField("max_bytes", "say either max_bytes or max_tensors")
        if len(_parts(files)) > 1:
            raise NothingToMerge(
                f"{files.name} is in parts already", hint=f"Merge it first: ostler merge {files.path}"
            )
        order = Order(
            SPLIT, (str(files.path),), name or stem_of(files.path.name), "", "", max_bytes, max_tensors
        )
        return await self._queue(order, to, principal)

    async def _queue(self, order: Order, to: Path | None, principal: Principal) -> Job:
        folder = await self._folder(to, principal)
        order = _complete(order, folder)
        _, done = await asyncio.to_thread(self._check, order)
        title = f"{order.kind} {order.name}"
        return await self._jobs.submit(
            order.kind, title, {**order.to_json(), "already_here": done}, order.key, principal
        )

    async def _folder(self, to: Path | None, principal: Principal) -> Path:
        """Where the result goes. Outside the library's folders only an administrator may write."""
        if to is None:
            return self._settings().effective_reshaped_dir
        if not to.is_absolute() or ".." in to.parts:
            raise InvalidField("to", f"{str(to)[:200]!r} is not an absolute path without '..'")
        roots = await self._library.roots()
        root = next((root for root in roots if is_inside(to, root.path)), None)
        if root is None:
            principal.require(Role.ADMIN, "write outside the library's folders")
        elif root.layout != "folder":
            raise InvalidField(
                "to",
                f"{root.path} is a {root.layout}, where a loose file would not be found",
                hint="Leave the folder out, or name one in the models folder.",
            )
        if not await asyncio.to_thread(to.is_dir):
            raise InvalidField("to", f"there is no folder {to}", hint="Make it first.")
        return to

    def _check(self, order: Order) -> tuple[tuple[NewFile, ...], bool]:
        """What is to be written, and whether all of it is there already.

        Raises BrokenFile, NameTaken, DiskFull.
        """
        folder, new = Path(order.folder), order.files()
        same = [is_same(file, folder / file.name) for file in new]
        if all(same):
            return new, True
        taken = [
            file.name
            for file, is_there in zip(new, same, strict=True)
            if not is_there and (folder / file.name).exists()
        ]
        if taken:
            raise NameTaken(f"there is another file {folder / taken[0]}")
        settings = self._settings()
        need, free = sum(file.size_bytes for file in new), free_bytes(folder)
        need -= sum(path.stat().st_size for path in order.staging.glob("*.gguf"))
        if need + settings.disk_reserve_bytes > free:
            hint = "Free some space, or choose a folder on another disk with --to"
            raise no_room(order.name, need, free, settings.disk_reserve_bytes, hint=hint)
        return new, False

    async def _run(self, job: Job, report: Report) -> Mapping[str, Any]:
        order = _order_of(job)
        new, already = await asyncio.to_thread(self._check, order)
        if not already:
            await self._carry_out(order, report)
            await asyncio.to_thread(_remove_staging, order)
        await self._library.refresh()
        total = 2 * sum(file.size_bytes for file in new)
        report({"bytes_done": total, "bytes_total": total, "eta_s": 0, "step": "done"})
        paths = [str(Path(order.folder, file.name)) for file in new]
        return {"path": paths[0], "files": paths, "already_here": already}

    async def _carry_out(self, order: Order, report: Report) -> None:
        try:
            said = await run_child(
                "ostler.reshaping.worker", order.to_json(), report, label=f"{order.kind} of {order.name}"
            )
        except ChildEnded as ended:
            tail = " | ".join(ended.log)
            raise ReshapingFailed(f"the process ended with {ended.exit_code} and no word: {tail}") from None
        if said["event"] == "failed":
            raise error_from(str(said["code"]), str(said["message"]))

    async def _discard(self, job: Job) -> None:
        order = _order_of(job)
        await asyncio.to_thread(_remove_staging, order)


def _order_of(job: Job) -> Order:
    return Order.from_json({k: v for k, v in job.request.items() if k != "already_here"})


def _parts(files: FileSet) -> list[Path]:
    """The model's own GGUF files, in order. Raises NothingToMerge, BrokenFile."""
    if files.format != "gguf":
        raise NothingToMerge(f"{files.name} is no GGUF", hint="Only GGUF models are merged and split.")
    if files.missing:
        raise BrokenFile(
            f"{files.name} is not whole: {', '.join(files.missing)} missing",
            hint="Fetch the missing parts first: ostler pull",
            missing=list(files.missing),
        )
    if files.error is not None:
        raise BrokenFile(files.error)
    own = [file.path for file in files.files if file.path != files.mmproj]
    return sorted(own, key=lambda path: path.name)


def _complete(order: Order, folder: Path) -> Order:
    """The order with its folder, and a key that is the same for the same work. Raises UnsafePath."""
    if "/" in order.name or not order.name.strip() or order.name.startswith("."):
        raise UnsafePath(f"{order.name[:200]!r} cannot be the name of a file")
    safe_join(folder, f"{order.name}.gguf")
    order = replace(order, folder=str(folder))
    body = json.dumps(order.to_json(), sort_keys=True).encode()
    return replace(order, key=hashlib.sha256(body).hexdigest()[:32])


def _remove_staging(order: Order) -> None:
    """Remove what was written so far, and the hidden folder when it is empty."""
    shutil.rmtree(order.staging, ignore_errors=True)
    try:
        Path(order.folder, STAGING).rmdir()
    except OSError:
        return  # another one is still in there, or it never was
