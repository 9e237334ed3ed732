"""The library's service: roots, one listing, inspection, finding and deleting.

Everything that touches the disk runs in threads. A listing always shows the disk as it is when it is
asked for: folders are scanned each time, headers are read again only where a file changed.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import OstlerError
from ostler.core.events import EventLog, NewEvent
from ostler.core.paging import Page
from ostler.core.principals import Principal, Role
from ostler.core.settings import Settings
from ostler.library.deletion import DeletePlan, InUse, check_not_in_use, refuse_unless_filled, remove
from ostler.library.errors import DeletionFailed, FileSetNotFound
from ostler.library.filesets import FileSet
from ostler.library.finding import choose_by_path, choose_by_repo, is_model
from ostler.library.folders import Folder, FolderView, look_into, root_holding, subfolders
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader
from ostler.library.inspections import Inspections
from ostler.library.layouts import LAYOUTS
from ostler.library.listing import Listing, Scanner, matching, relative_to_root, sorted_by
from ostler.library.loose import inspect_loose, raise_own_error
from ostler.library.roots import Root, RootStore
from ostler.library.scanning import Problem

log = logging.getLogger(__name__)
MANY = 1_000
"""File sets, from which on looking at all of them takes a person's time."""
YOUNG_S, OLD_S = 1.0, 30.0
"""A look at so many is not repeated within the first, and not answered with after the second."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found by a look at all folders that ended at `at_s` of the monotonic clock."""

    number: int
    listing: Listing
    at_s: float


class Library:
    """Model files on disk, over all roots of this node."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, settings: Settings, node: str
    ) -> None:
        self._events = events
        self._clock = clock
        self._settings = settings
        self._roots = RootStore(database, events, clock, node)
        self._inspections = Inspections(database)
        self._scanner = Scanner(self._inspections)
        self._scanning = asyncio.Lock()
        self._scans_begun = 0
        self._refreshes = 0
        self._last_sets: builtins.list[FileSet] | None = None
        self._listing: _Look | None = None
        self._looking: asyncio.Task[None] | None = None
        self._lists_flat = False

    async def start(self) -> None:
        """Make sure that the configured folders are roots, and load what was inspected before.

        Raises NestedRoots where one of them lies inside the other.
        """
        await asyncio.to_thread(_make_own, self._settings.effective_reshaped_dir)
        await self._configure(with_flat=await asyncio.to_thread(self._settings.llama_cache_dir.is_dir))
        await self._inspections.load()

    async def list_llama_cache(self) -> None:
        """List llama.cpp's flat cache from now on, which something was put into. Raises NestedRoots."""
        if not self._lists_flat:
            await self._configure(with_flat=True)

    async def _configure(self, *, with_flat: bool) -> None:
        settings = self._settings
        configured = [
            (settings.effective_models_dir, "folder", False),
            (settings.hub_cache_dir, "hub-cache", True),
            (settings.effective_reshaped_dir, "folder", True),
        ]
        if with_flat and settings.llama_cache_dir != settings.hub_cache_dir:
            configured.append((settings.llama_cache_dir, "llama-cache", True))
        await self._roots.configure(configured)
        self._lists_flat = with_flat

    async def close(self) -> None:
        """End a look that nobody waits for."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def roots(self) -> builtins.list[Root]:
        """The roots of this node."""
        return await self._roots.all()

    async def add_root(self, path: Path, layout: str, principal: Principal) -> Root:
        """List another folder. Its files are never deleted. Needs the role admin.

        Raises PathNotFound, InvalidField, NestedRoots, RootExists, NotAllowed.
        """
        principal.require(Role.ADMIN, "add folders to the library")
        return await self._roots.add(Path(path), layout, principal)

    async def remove_root(self, root_id: int, principal: Principal) -> None:
        """No longer list a folder; the files stay. Needs the role admin. Raises RootNotFound, Conflict."""
        principal.require(Role.ADMIN, "remove folders from the library")
        await self._roots.remove(root_id, principal)

    async def list(
        self,
        *,
        search: str | None = None,
        layout: str | None = None,
        repo: str | None = None,
        format: str | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[FileSet]:
        """One page over all roots. Raises InvalidField for an unknown `sort`."""
        listing = await self._scan()

        def select() -> builtins.list[FileSet]:
            wanted = matching(listing.file_sets, search=search, layout=layout, repo=repo, format=format)
            return sorted_by(wanted, sort, descending)

        found = await asyncio.to_thread(select)
        return Page(found[offset : offset + limit], len(found), limit, offset)

    async def fetched(self) -> builtins.list[FileSet]:
        """The models in the hub cache's layout, in roots that Ostler fills; projectors are none."""
        filled = {root.id for root in await self._roots.all() if root.filled_by_ostler}
        listing = await self._scan()
        return [s for s in listing.file_sets if s.root_id in filled and s.revision and is_model(s)]

    async def recent(self) -> builtins.list[FileSet]:
        """Everything over all roots. The very same list is given until something is different.

        Of MANY file sets what another program did to the folders may be seen one look late: an answer does
        not wait for a look while the last one is young. What Ostler did is always seen.
        """
        last = self._listing
        if last is None or len(last.listing.file_sets) < MANY or self._age_s(last) > OLD_S:
            return (await self._scan()).file_sets
        if self._age_s(last) > YOUNG_S and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_again())
        return last.listing.file_sets

    async def of_repo(self, repo: str) -> builtins.list[FileSet]:
        """Everything that is here of a repo of the Hub, as the disk is now; no other folder is looked at."""
        roots = [root for root in await self._roots.all() if root.available]
        await self._inspections.load()
        found = await asyncio.to_thread(self._of_repo, roots, repo)
        await self._inspections.save()
        return found

    async def problems(self) -> builtins.list[Problem]:
        """What a scan passes over: links that lead out, unreadable folders."""
        return (await self._scan()).problems

    async def get(self, file_set_id: str) -> FileSet:
        """The file set with that id. Raises FileSetNotFound."""
        for found in (await self._scan()).file_sets:
            if found.id == file_set_id:
                return found
        raise FileSetNotFound(f"there is no file set {file_set_id!r}", id=file_set_id)

    async def inspect(self, path: Path) -> FileSet:
        """The file set at any path on this disk, listed or not; an incomplete one is an answer too.

        Raises PathNotFound, NotAModelFile, UnsupportedFile, BrokenFile.
        """
        found = await self.find(path=path)
        if found is None:
            found = await asyncio.to_thread(inspect_loose, Path(path))
        if found.error is not None:
            await asyncio.to_thread(raise_own_error, found)
        return found

    async def header(self, files: FileSet) -> GgufHeader:
        """The header of a GGUF, of its first shard. Raises PathNotFound, BrokenFile and the like."""
        return await asyncio.to_thread(read_gguf_header, files.path)

    async def find(
        self,
        *,
        path: Path | None = None,
        repo: str | None = None,
        file: str | None = None,
        tag: str | None = None,
        revision: str | None = None,
    ) -> FileSet | None:
        """The file set that a source means, None if it is in no root.

        By `path` (a file, a shard, a folder), or by `repo` with a file's name or a tag; `revision` is a
        branch, a tag or a commit. Only the folder in question is looked at.
        """
        if path is None:
            candidates = [] if repo is None else await self.of_repo(repo)
            return choose_by_repo(candidates, file=file, tag=tag, revision=revision)
        roots = [root for root in await self._roots.all() if root.available]
        await self._inspections.load()
        found = await asyncio.to_thread(self._find_path, roots, Path(path))
        await self._inspections.save()
        return found

    async def root_of(self, path: Path) -> Root:
        """The root that a path lies in, also with every link followed. Raises OutsideRoots."""
        return await asyncio.to_thread(root_holding, await self._roots.all(), Path(path))

    async def subfolders(self, base: Path) -> builtins.list[Folder]:
        """The folders directly in a folder of a root. Raises OutsideRoots, PathNotFound."""
        return await asyncio.to_thread(subfolders, await self.root_of(base), base)

    async def look_into(self, folder: Path) -> FolderView:
        """Every model in a folder of a root and below it. Raises OutsideRoots, PathNotFound."""
        root = await self.root_of(folder)
        await self._inspections.load()
        view = await asyncio.to_thread(look_into, root, folder, self._scanner, self._inspections)
        await self._inspections.save()
        return view

    async def plan_delete(self, file_set_id: str, in_use: InUse) -> DeletePlan:
        """What deleting a file set would do.

        Raises FileSetNotFound, DeletionNotAllowed (not in a root that Ostler fills), FileInUse.
        """
        return await self._plan(await self.get(file_set_id), in_use)

    async def delete(self, plan: DeletePlan, principal: Principal) -> DeletePlan:
        """Carry out a plan, worked out anew: what changed in between counts. Gives what was done.

        Needs the role manager. Raises NotAllowed and what `plan_delete` raises, and DeletionFailed.
        """
        principal.require(Role.MANAGER, "delete model files")
        current = await self._plan(await self.get(plan.file_set.id), plan.in_use)
        try:
            await asyncio.to_thread(remove, current)
        except DeletionFailed as error:
            await self._tell("file.delete_failed", current, principal, {**current.to_json(), **error.facts})
            raise
        finally:
            await self.refresh()
        await self._tell("file.deleted", current, principal, current.to_json())
        return current

    async def refresh(self) -> None:
        """Look at everything again at the next listing."""
        self._refreshes += 1
        self._listing = None
        self._scanner.forget()

    async def _scan(self) -> Listing:
        """Scan all roots; callers that wait for the same scan share it."""
        arrived = self._scans_begun
        async with self._scanning:
            if self._listing is not None and self._listing.number > arrived:
                return self._listing.listing
            self._scans_begun += 1
            number, refreshes = self._scans_begun, self._refreshes
            await self._inspections.load()
            roots = await self._roots.all()
            listing = await asyncio.to_thread(self._scanner.scan, roots)
            if self._last_sets is not None and _are_the_same(self._last_sets, listing.file_sets):
                listing = replace(listing, file_sets=self._last_sets)
            self._last_sets = listing.file_sets
            await self._inspections.save()
            available = [str(root.path) for root in roots if root.available]
            await self._inspections.forget_all_but(available, listing.paths)
            if self._refreshes == refreshes:  # else it may have been made before the change
                self._listing = _Look(number, listing, self._clock.monotonic())
            return listing

    async def _look_again(self) -> None:
        try:
            await self._scan()
        except (OstlerError, OSError) as error:
            log.warning("the library's folders could not be looked at: %s", error)

    def _age_s(self, look: _Look) -> float:
        return self._clock.monotonic() - look.at_s

    def _find_path(self, roots: builtins.list[Root], path: Path) -> FileSet | None:
        for root in roots:
            relative = relative_to_root(root, path)
            if relative is None:
                continue
            within = LAYOUTS[root.layout].scope(relative, is_folder=os.path.isdir(path))  # noqa: PTH112 - any path is a question, none an error
            if found := choose_by_path(self._scanner.scan_within(root, within), path):
                return found
        return None

    def _of_repo(self, roots: builtins.list[Root], repo: str) -> builtins.list[FileSet]:
        scopes = [(root, LAYOUTS[root.layout].repo_scope(str(root.path), repo)) for root in roots]
        return self._scanner.scan_scopes([(root, within) for root, within in scopes if within is not None])

    async def _tell(self, kind: str, plan: DeletePlan, principal: Principal, data: Mapping[str, Any]) -> None:
        await self._events.record(
            NewEvent(
                kind=kind,
                subject_type="file_set",
                subject_id=plan.file_set.id,
                subject_name=plan.file_set.name,
                actor=principal.name,
                cause=f"{principal.name} asked to delete the files of {plan.file_set.name}",
                data=data,
            )
        )

    async def _plan(self, doomed: FileSet, in_use: InUse) -> DeletePlan:
        root = await self._roots.get(doomed.root_id)
        layout = LAYOUTS[root.layout]
        refuse_unless_filled(root, doomed)

        def plan() -> DeletePlan:
            relative = os.path.relpath(doomed.path, root.path)
            others = self._scanner.scan_within(root, layout.scope(relative, is_folder=False))
            removal = layout.removal(str(root.path), doomed, [o for o in others if o.id != doomed.id])
            check_not_in_use(doomed, in_use)
            return DeletePlan.of(root, doomed, removal, in_use)

        return await asyncio.to_thread(plan)


def _are_the_same(before: list[FileSet], after: list[FileSet]) -> bool:
    """True where a scan put nothing together anew."""
    return len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))


def _make_own(folder: Path) -> None:
    """Make the folder that is Ostler's own. Where that fails it is listed as not available, like any root."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("the folder for merged and split files cannot be made: %s", error)
