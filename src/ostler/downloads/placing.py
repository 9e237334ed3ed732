"""The hub cache's layout: `blobs/<etag>`, `snapshots/<commit>/<path>` as links, `refs/<revision>`.

Described at https://huggingface.co/docs/huggingface_hub/how-to-cache, shared with other programs.
Blobs come first, where nobody looks for a model; a file set shows in a snapshot only when every
file of it is there, and the file that an engine is given comes last.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ostler.downloads.order import OrderedFile
from ostler.downloads.partial import sync_folder
from ostler.library.errors import UnsafePath
from ostler.library.paths import safe_join

_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})

Link = Callable[[str, Path], None]


def repo_folder(cache_dir: Path, repo: str) -> Path:
    """Where a model repo lives in the cache. Raises UnsafePath."""
    return safe_join(cache_dir, single_name("models--" + repo.replace("/", "--")))


class Placing:
    """One commit of one repo in the hub cache. Every name from outside is joined safely (UnsafePath)."""

    def __init__(self, repo_dir: Path, commit: str, *, link: Link = os.symlink) -> None:
        self.repo_dir = repo_dir
        self._link = link
        self._inside = f"snapshots/{single_name(commit)}"
        self._commit = commit
        self.snapshot = safe_join(repo_dir, self._inside)

    def blob(self, file: OrderedFile) -> Path:
        """Where the file's contents go (it may be a link into a store that other programs share)."""
        return safe_join(self.repo_dir, "blobs") / single_name(file.etag)

    def pointer(self, file: OrderedFile) -> Path:
        """Where the file is found by its name."""
        folder, _, name = file.path.rpartition("/")
        if "" in file.path.split("/") or file.path[1:2] == ":":
            raise UnsafePath(f"{file.path!r} is not a relative path", path=file.path)
        parent = safe_join(self.repo_dir, f"{self._inside}/{folder}" if folder else self._inside)
        return parent / single_name(name)

    def has_contents(self, file: OrderedFile) -> bool:
        """True when the contents are here already, in the right size."""
        return _size(self.blob(file)) == file.size or self.has_pointer(file)

    def has_pointer(self, file: OrderedFile) -> bool:
        """True when the file is in this snapshot, in the right size."""
        return _size(self.pointer(file)) == file.size

    def ref(self, revision: str) -> str | None:
        """The commit that the cache knows for a branch or tag."""
        try:
            return safe_join(self.repo_dir, f"refs/{revision}").read_text().strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def is_complete(self, files: Sequence[OrderedFile], revision: str) -> bool:
        """True when nothing is left to do: every file listed, and the revision known."""
        known = revision == self._commit or self.ref(revision) == self._commit
        return known and all(self.has_pointer(file) for file in files)

    def make_folders(self) -> None:
        """Make the repo's folders for blobs and snapshots."""
        for name in ("blobs", "snapshots", "refs"):
            safe_join(self.repo_dir, name).mkdir(parents=True, exist_ok=True)

    def show(self, files: Sequence[OrderedFile], primary: str, revision: str, staging: Path) -> None:
        """List the files in the snapshot, all contents being here; then point the revision to it."""
        todo = sorted((f for f in files if not self.has_pointer(f)), key=lambda file: file.path == primary)
        for number, file in enumerate(todo):
            pointer = self.pointer(file)
            pointer.parent.mkdir(parents=True, exist_ok=True)
            self._point(pointer, self.blob(file), staging / f"link-{number}")
        for folder in {self.pointer(file).parent for file in todo}:
            sync_folder(folder)
        if revision != self._commit and self.ref(revision) != self._commit:
            target = safe_join(self.repo_dir, f"refs/{revision}")
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = staging / "ref"
            fresh.write_text(self._commit)
            fresh.replace(target)

    def _point(self, pointer: Path, blob: Path, fresh: Path) -> None:
        """Make `pointer` lead to `blob` in one step: by a link, else by moving the contents there."""
        fresh.unlink(missing_ok=True)
        try:
            self._link(os.path.relpath(blob, pointer.parent), fresh)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            blob.replace(pointer)
        else:
            fresh.replace(pointer)


def single_name(name: str) -> str:
    """The name of one file or folder, unchanged. Raises UnsafePath."""
    if "/" in name or "\\" in name or name in ("", ".", "..") or not name.isprintable():
        raise UnsafePath(f"{name!r} cannot be the name of a file")
    return name


def _size(path: Path) -> int | None:
    """The size of the file there, links followed; None when there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
