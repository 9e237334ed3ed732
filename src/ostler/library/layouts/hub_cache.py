"""The layout `hub-cache`: what `huggingface_hub` keeps, shared with every other program that uses it.

`models--org--name/` holds `blobs/` (files by hash), `snapshots/<commit>/` (links into blobs under the
repo's file names) and `refs/` (branches and tags, each a file with a commit). One blob may serve several
revisions. https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from ostler.library.filesets import FileSet
from ostler.library.layouts.base import Removal
from ostler.library.scanning import MAX_DEPTH, Neighbourhood, Place, SeenFile, Walk, seen

PREFIX = "models--"
MAX_REF_BYTES = 256
MAX_REFS = 1_000
WEIGHT_ENDINGS = (
    ".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".msgpack", ".npz", ".tflite",
)  # fmt: skip
"""Files that are never removed along with something else."""


class HubCacheLayout:
    """The Hugging Face cache. Links may lead into the blobs of the same repo and nowhere else."""

    name = "hub-cache"
    names_others = False

    def scan(self, root: str, walk: Walk, within: str | None = None) -> Iterator[Neighbourhood]:
        """Each snapshot of each repo is a neighbourhood; `within` names one repo's folder."""
        for entry in walk.entries_of(root):
            if not entry.name.startswith(PREFIX) or (within is not None and entry.name != within):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._scan_repo(entry, walk)
            elif entry.is_symlink():
                walk.report(entry.path, "is a link; repos are folders")

    def scope(self, relative: str, *, is_folder: bool) -> str:
        """The repo's folder."""
        return relative.split("/", 1)[0]

    def repo_scope(self, root: str, repo: str) -> str | None:
        """The folder of `org/name`; upper and lower case count as the same, as on the Hub."""
        wanted = PREFIX + repo.replace("/", "--")
        if Path(root, wanted).is_dir():
            return wanted
        try:
            names = os.listdir(root)  # noqa: PTH208
        except OSError:
            return None
        return next((name for name in names if name.lower() == wanted.lower()), None)

    def removal(self, root: str, doomed: FileSet, others: Collection[FileSet]) -> Removal | None:
        """Links of the set, blobs that nothing else links to, and what is left empty by that."""
        return _plan_removal(root, doomed, others)

    def _scan_repo(self, repo: os.DirEntry[str], walk: Walk) -> Iterator[Neighbourhood]:
        name = repo.name[len(PREFIX) :].replace("--", "/")
        refs = read_refs(repo.path)
        for snapshot in walk.entries_of(f"{repo.path}/snapshots"):
            if not snapshot.is_dir(follow_symlinks=False):
                continue
            base = f"{repo.name}/snapshots/{snapshot.name}"
            places = list(self._places(snapshot.path, base, f"{repo.path}/blobs", walk))
            if places:
                pointing = tuple(sorted(ref for ref, commit in refs.items() if commit == snapshot.name))
                yield Neighbourhood(base, places, name, snapshot.name, pointing, base)

    def _places(self, path: str, relative: str, blobs: str, walk: Walk) -> Iterator[Place]:
        waiting = [(path, relative, 0)]
        while waiting:
            path, relative, depth = waiting.pop()
            files: dict[str, SeenFile] = {}
            for entry in walk.entries_of(path):
                if entry.is_dir(follow_symlinks=False):
                    if depth < MAX_DEPTH:
                        waiting.append((entry.path, f"{relative}/{entry.name}", depth + 1))
                    continue
                found = blob_of(entry.path, blobs) if entry.is_symlink() else entry.path
                if found is None:
                    walk.report(entry.path, "is a link that does not lead to a blob of its repo")
                elif file := _regular(found, entry.path):
                    files[entry.name] = file
            if files:
                yield Place(path, relative, files)


def read_refs(repo_path: str) -> dict[str, str]:
    """Branches and tags of a repo's folder with the commit that each points to."""
    refs: dict[str, str] = {}
    waiting = [(f"{repo_path}/refs", "")]
    while waiting and len(refs) < MAX_REFS:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and prefix.count("/") < MAX_DEPTH:
                        waiting.append((entry.path, f"{prefix}{entry.name}/"))
                    elif entry.is_file(follow_symlinks=False):
                        with open(entry.path, "rb") as file:  # noqa: PTH123 - thousands of files
                            commit = file.read(MAX_REF_BYTES).decode("ascii", "replace").strip()
                        refs[prefix + entry.name] = commit
        except OSError:
            # A ref only names a snapshot; without it the snapshot is still listed by its commit.
            continue
    return refs


def blob_of(link: str, blobs: str) -> str | None:
    """The blob that a snapshot's link leads to; None if it leads anywhere but into `blobs`."""
    try:
        target = os.readlink(link)  # noqa: PTH115
    except OSError:
        return None
    where = os.path.normpath(os.path.join(os.path.dirname(link), target))  # noqa: PTH118, PTH120
    if os.path.dirname(where) == blobs:  # noqa: PTH120
        return where
    if os.path.isabs(target) and os.path.dirname(os.path.realpath(where)) == os.path.realpath(blobs):  # noqa: PTH117, PTH120
        return os.path.join(blobs, os.path.basename(where))  # noqa: PTH118, PTH119
    return None


def _regular(target: str, shown_as: str) -> SeenFile | None:
    try:
        found = os.lstat(target)
    except OSError:
        return None
    return seen(shown_as, found) if stat.S_ISREG(found.st_mode) else None


def _plan_removal(root: str, doomed: FileSet, others: Collection[FileSet]) -> Removal:
    """Work out what goes. Links are looked at again: the listing may be a moment old."""
    snapshot = doomed.path if doomed.format == "safetensors" else doomed.path.parent
    repo = Path(root, Path(os.path.relpath(snapshot, root)).parts[0])
    base = repo / "snapshots" / (doomed.revision or "")
    neighbours = [
        other for other in others if other.revision == doomed.revision and other.repo == doomed.repo
    ]
    needed = {file.path for other in neighbours for file in other.files}
    keep = [(f.path, "another model of this snapshot uses it") for f in doomed.files if f.path in needed]
    going = {file.path for file in doomed.files if file.path not in needed}
    everything = {Path(folder, name) for folder, _, names in os.walk(base) for name in names}
    left = everything - going
    if not needed and not any(path.name.lower().endswith(WEIGHT_ENDINGS) for path in left):
        going |= left  # what is left describes the model that goes: README, licence, configuration
    links = _links(repo)
    blobs: dict[Path, int] = {}
    freed = 0
    for path in sorted(going):
        blob = links.get(path)
        if blob is None:
            freed += freed_bytes(path)
            continue
        users = {link for link, target in links.items() if target == blob}
        if users <= going:
            blobs[blob] = freed_bytes(blob)
        elif any(path == file.path for file in doomed.files):
            keep.append((blob, "another revision or name in the cache uses these bytes"))
    folders = _folders(repo, base, emptied=everything <= going)
    refs = _pointers_to(repo, base.name) if everything <= going else []
    return Removal(
        files=(*sorted(going), *sorted(blobs), *refs),
        folders=folders,
        keep=tuple(keep),
        freed_bytes=freed + sum(blobs.values()),
    )


def freed_bytes(path: Path) -> int:
    """What the disk gets back when this name goes: nothing while the file has other names."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0


def _links(repo: Path) -> dict[Path, Path]:
    """Every link in the repo's snapshots with the blob that it leads to."""
    found: dict[Path, Path] = {}
    for folder, _, names in os.walk(repo / "snapshots"):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink() and (blob := blob_of(str(path), f"{repo}/blobs")):
                found[path] = Path(blob)
    return found


def _pointers_to(repo: Path, commit: str) -> list[Path]:
    """Refs of a commit, and the empty files by which the cache remembers what the commit does not have."""
    refs = [repo / "refs" / ref for ref, target in read_refs(str(repo)).items() if target == commit]
    absent = [Path(folder, n) for folder, _, names in os.walk(repo / ".no_exist" / commit) for n in names]
    return refs + absent


def _folders(repo: Path, base: Path, *, emptied: bool) -> tuple[Path, ...]:
    """Folders that may be empty afterwards, deepest first; the repo's own only with its last snapshot."""
    below = [Path(folder) for folder, _, _ in os.walk(base, topdown=False)]
    if not emptied:
        return tuple(path for path in below if path != base)
    refs = [Path(folder) for folder, _, _ in os.walk(repo / "refs", topdown=False)]
    no_exist = [Path(folder) for folder, _, _ in os.walk(repo / ".no_exist", topdown=False)]
    return (*below, *no_exist, repo / "snapshots", *refs, repo / "blobs", repo)
