"""What a download would do, before it does it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ostler.core.disk import free_bytes
from ostler.downloads.order import OrderedFile
from ostler.downloads.partial import staged_bytes
from ostler.downloads.placing import Placing, repo_folder
from ostler.hub.records import Resolution

STAGING = ".ostler-staging"


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of a plan. `have_bytes`: how much of it is here already, whole or from a former attempt.

    `twin` is a file outside the hub cache that seems to be the same.
    """

    path: str
    size_bytes: int
    etag: str
    sha256: str | None
    have_bytes: int
    twin: str | None = None


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """Which files at which commit, and whether there is room for them.

    `need_bytes` is what would be fetched; it fits when `free_bytes` leaves `reserve_bytes` after it.
    `target` is the file or folder that the download makes.
    """

    spec: str
    repo: str
    revision: str
    commit: str
    primary: str
    format: str
    files: tuple[PlannedFile, ...]
    total_bytes: int
    have_bytes: int
    need_bytes: int
    free_bytes: int
    reserve_bytes: int
    gated: bool
    target_layout: str
    target: str
    complete: bool
    """Everything is here and listed; a pull has nothing to do."""

    @property
    def fits_disk(self) -> bool:
        """True when the disk has room for what is missing, and the reserve."""
        return self.need_bytes == 0 or self.need_bytes + self.reserve_bytes <= self.free_bytes

    @property
    def dedupe_key(self) -> str:
        """The same for the same work: repo, revision and what is loaded of it."""
        return dedupe_key(self.repo, self.revision, self.primary)

    def to_request(self) -> dict[str, Any]:
        """What a job keeps of the plan; never a token."""
        wanted = ("spec", "repo", "revision", "commit", "primary", "format")
        files = [{k: v for k, v in asdict(file).items() if k != "have_bytes"} for file in self.files]
        return {**{name: getattr(self, name) for name in wanted}, "files": files}


def dedupe_key(repo: str, revision: str, primary: str) -> str:
    """The key under which at most one download is open."""
    return f"download:{repo}@{revision}/{primary}"


def staging_folder(cache_dir: Path, key: str) -> Path:
    """Where a download's files grow: in the hub cache, so that they only need a rename at the end."""
    return cache_dir / STAGING / hashlib.sha256(key.encode()).hexdigest()[:24]


def make_plan(
    spec: str,
    found: Resolution,
    cache_dir: Path,
    reserve_bytes: int,
    twin_of: Callable[[str], Path | None] = lambda path: None,
) -> DownloadPlan:
    """Compare what the hub has with what is here. Looks at the disk: call it in a thread.

    `twin_of` names the file outside the hub cache that may be one of the repo's. Raises UnsafePath when a
    name from the hub leads out of its folder.
    """
    placing = Placing(repo_folder(cache_dir, found.repo), found.commit)
    staging = staging_folder(cache_dir, dedupe_key(found.repo, found.revision, found.primary))
    ordered = [
        OrderedFile(f.path, "", f.size_bytes, f.etag, f.sha256, _twin(twin_of(f.path), f.size_bytes))
        for f in found.files
    ]
    files = tuple(
        PlannedFile(
            file.path, file.size, file.etag, file.sha256, have_bytes(placing, staging, file), file.twin
        )
        for file in ordered
    )
    total, have = sum(f.size_bytes for f in files), sum(f.have_bytes for f in files)
    return DownloadPlan(
        spec=spec,
        repo=found.repo,
        revision=found.revision,
        commit=found.commit,
        primary=found.primary,
        format=found.format,
        files=files,
        total_bytes=total,
        have_bytes=have,
        need_bytes=total - have,
        free_bytes=free_bytes(cache_dir),
        reserve_bytes=reserve_bytes,
        gated=bool(found.gated),
        target_layout="hub-cache",
        target=str(target_of(placing, found.primary, found.format)),
        complete=placing.is_complete(ordered, found.revision),
    )


def ordered_files(request: Mapping[str, Any], url: Callable[[str], str]) -> tuple[OrderedFile, ...]:
    """The files of a job's request, with the address of each."""
    return tuple(
        OrderedFile(
            file["path"],
            url(file["path"]),
            file["size_bytes"],
            file["etag"],
            file["sha256"],
            file.get("twin"),
        )
        for file in request["files"]
    )


def have_bytes(placing: Placing, staging: Path, file: OrderedFile) -> int:
    """How much of a file need not be fetched."""
    if file.twin is not None or placing.has_contents(file):
        return file.size
    return staged_bytes(staging, file.etag, file.size)


def missing_bytes(placing: Placing, staging: Path, files: Sequence[OrderedFile]) -> int:
    """What still has to be fetched."""
    wanted = {file.etag: file for file in files}
    return sum(file.size - have_bytes(placing, staging, file) for file in wanted.values())


def _twin(path: Path | None, size: int) -> str | None:
    try:
        return str(path) if path is not None and path.is_file() and path.stat().st_size == size else None
    except OSError:
        return None


def target_of(placing: Placing, primary: str, form: str) -> Path:
    """What an engine loads: the (first) GGUF file, or the folder of the safetensors files."""
    path = placing.snapshot / primary
    return path if form == "gguf" else path.parent
