"""What was fetched from the hub, by repo and tag, whichever of the two cache layouts it lies in.

A tag of the flat cache is what its manifest says; in the hub cache it is the quantization of a GGUF, or
the branch of a safetensors folder. A model that lies in both, as one file with two names, is listed once.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostler.core.errors import NotFound
from ostler.core.events import EventLog, NewEvent
from ostler.core.principals import Principal, Role
from ostler.core.settings import Settings
from ostler.library.deletion import InUse, carry_out, refuse_if_used
from ostler.library.filesets import FileSet
from ostler.library.layouts.base import Removal
from ostler.library.layouts.llama_cache import (
    Manifest,
    leads_to_blob,
    manifests_among,
    manifests_in,
    removal_of,
)
from ostler.library.scanning import SeenFile, regular, seen
from ostler.library.service import Library


class CachedModelNotFound(NotFound):
    """No cache here holds that repo, or that tag of it."""

    hint = "A tag is listed as it was asked for; without one every tag of the repo is meant."


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One file. `kind` is gguf, mmproj, preset or other; `name` is that of the file in its folder."""

    name: str
    path: str
    size_bytes: int
    modified_at_s: int
    kind: str


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One tag of a repo with its files, the one that an engine is given first.

    `set_ids` are the file sets that it is made of, where it lies in a hub cache: one for each snapshot.
    """

    repo: str
    tag: str
    files: tuple[CachedFile, ...]
    set_ids: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The sum over the files."""
        return sum(file.size_bytes for file in self.files)


class CachedModels:
    """Lists and deletes what is in the caches that Ostler fills."""

    def __init__(self, library: Library, events: EventLog, settings: Settings) -> None:
        self._library = library
        self._events = events
        self._folder = settings.llama_cache_dir
        self._remembered: dict[SeenFile, Manifest | None] = {}

    async def list(self) -> builtins.list[CachedModel]:
        """Every tag of every repo, by name."""
        sets = await self._library.fetched()
        return await asyncio.to_thread(_list, self._folder, sets, self._remembered)

    async def delete(self, repo: str, tag: str | None, in_use: InUse, principal: Principal) -> Removal:
        """Delete a tag, or without one the whole repo, in both layouts; what other tags need stays.

        Upper and lower case count as the same. What went from the flat cache is given. Needs the role
        manager. Raises CachedModelNotFound, FileInUse, DeletionFailed, NotAllowed.
        """
        principal.require(Role.MANAGER, "delete model files")
        what = f"{repo}:{tag}" if tag else repo
        sets = await self._library.fetched()
        removal, doomed = await asyncio.to_thread(_plan, self._folder, sets, repo, tag)
        if not removal.files and not doomed:
            raise CachedModelNotFound(f"model not found: {what}", repo=repo)
        paths = {*removal.files, *(file.path for files in doomed for file in files.files)}
        await asyncio.to_thread(refuse_if_used, what, paths, in_use)
        plans = [await self._library.plan_delete(files.id, in_use) for files in doomed]
        try:
            await asyncio.to_thread(carry_out, self._folder, removal.files, removal.folders)
            for plan in plans:
                await self._library.delete(plan, principal)
        finally:
            await self._library.refresh()
        if removal.files:
            await self._events.record(
                NewEvent(
                    kind="file.deleted",
                    subject_type="cached_model",
                    subject_id=what,
                    subject_name=what,
                    actor=principal.name,
                    cause=f"{principal.name} asked to delete {what} from the cache",
                    data={"delete": [str(path) for path in removal.files]},
                )
            )
        return removal


def _list(
    folder: Path, sets: Iterable[FileSet], remembered: dict[SeenFile, Manifest | None]
) -> list[CachedModel]:
    here = _look(folder)
    manifests = manifests_among(here, here.__getitem__, remembered)
    flat = [model for manifest in manifests if (model := _flat(manifest, here))]
    named = {here[file.name].contents for model in flat for file in model.files if file.kind != "preset"}
    merged: dict[tuple[str, str], list[FileSet]] = {}
    for files in sets:
        if _contents(files) not in named:
            merged.setdefault(((files.repo or "").lower(), _tag(files)), []).append(files)
    hub = [_hub(found) for found in merged.values()]
    return sorted([*flat, *hub], key=lambda model: (model.repo.lower(), model.tag.lower(), model.tag))


def _plan(folder: Path, sets: Sequence[FileSet], repo: str, tag: str | None) -> tuple[Removal, list[FileSet]]:
    """What goes from the flat cache, and which file sets go from hub caches."""
    manifests = manifests_in(folder)
    doomed = [m for m in manifests if _is(m.repo, m.tag, repo, tag)]
    staying = [m for m in manifests if m not in doomed]
    here = _look(folder)
    removal = removal_of(folder, doomed, staying)
    gone = {here[path.name].contents for path in removal.files if path.parent == folder and path.name in here}
    kept = {here[name].contents for m in staying for name in m.gguf if name in here}
    twins = [files for files in sets if _contents(files) in gone]
    named = [s for s in sets if _is(s.repo or "", _tag(s), repo, tag) and _contents(s) not in kept]
    return removal, list({files.id: files for files in (*twins, *named)}.values())


def _is(its_repo: str, its_tag: str, repo: str, tag: str | None) -> bool:
    return its_repo.lower() == repo.lower() and (tag is None or its_tag.lower() == tag.lower())


def _look(folder: Path) -> dict[str, SeenFile]:
    """The files in the flat cache by name; links to blobs of a hub cache count, other links do not."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file() and (not entry.is_symlink() or leads_to_blob(entry.path)):
                        found[entry.name] = seen(entry.path, entry.stat())
                except OSError:
                    continue  # it went away, or its link leads to nothing
    except OSError:
        return {}
    return found


def _flat(manifest: Manifest, here: Mapping[str, SeenFile]) -> CachedModel | None:
    """One tag of the flat cache; None where none of its weights are here."""
    kinds = dict.fromkeys(manifest.gguf, "gguf")
    if manifest.mmproj:
        kinds[manifest.mmproj] = "mmproj"
    kinds[manifest.preset] = "preset"
    files = tuple(
        CachedFile(name, file.path, file.size_bytes, file.mtime_ns // 10**9, kind)
        for name, kind in kinds.items()
        if (file := here.get(name)) is not None
    )
    if not any(file.kind == "gguf" for file in files):
        return None
    return CachedModel(manifest.repo, manifest.tag, files)


def _hub(found: Sequence[FileSet]) -> CachedModel:
    """What several snapshots have of one tag: the newest one's files."""
    newest = max(found, key=lambda files: ("main" in files.refs, files.modified_at))
    modified_at_s = int(newest.modified_at.timestamp())
    files = tuple(
        CachedFile(file.path.name, str(file.path), file.size_bytes, modified_at_s, _kind(newest, file.path))
        for file in newest.files
    )
    return CachedModel(newest.repo or "", _tag(newest), files, tuple(files.id for files in found))


def _kind(files: FileSet, path: Path) -> str:
    if path == files.mmproj:
        return "mmproj"
    return "gguf" if path.name.lower().endswith(".gguf") else "other"


def _tag(files: FileSet) -> str:
    """A GGUF's quantization, else its name; of a folder the branch that points to it, else the commit."""
    if files.format == "gguf":
        return files.tag or files.path.stem
    return "main" if "main" in files.refs else next(iter(files.refs), files.revision or "")


def _contents(files: FileSet) -> tuple[int, int, int] | None:
    found = regular(str(files.path))
    return found.contents if found else None
