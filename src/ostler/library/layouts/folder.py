"""The layout `folder`: model files nested as a person likes; also how Ostler keeps what it reshaped."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from ostler.library.filesets import FileSet
from ostler.library.layouts.base import Removal
from ostler.library.scanning import MAX_DEPTH, Neighbourhood, Place, SeenFile, Walk, regular, seen


class FolderLayout:
    """Loose GGUFs, shards, a projector beside its model, safetensors folders, in any depth."""

    name = "folder"
    names_others = False

    def scan(
        self, root: str, walk: Walk, within: str | None = None, *, deep: bool = False
    ) -> Iterator[Neighbourhood]:
        """Every folder is a neighbourhood of its own. With `within` that one folder only, or `deep` below."""
        start = os.path.join(root, within) if within else root  # noqa: PTH118
        if not _leads_inside(start, root):
            walk.report(start, "leads out of the root")
            return
        # Links wait until all real folders are done, so a folder is listed under its own name.
        waiting: list[tuple[str, str]] = [(start, within or "")]
        linked: list[tuple[str, str]] = []
        entered: set[tuple[int, int]] = set()
        while waiting or linked:
            path, relative = waiting.pop() if waiting else linked.pop(0)
            if not self._enter(path, entered, walk):
                continue
            files: dict[str, SeenFile] = {}
            for entry in walk.entries_of(path):
                below = f"{relative}/{entry.name}" if relative else entry.name
                kind = self._look(entry, root, files, walk)
                if kind and (deep or within is None):
                    if below.count("/") >= MAX_DEPTH:
                        walk.report(entry.path, f"more than {MAX_DEPTH} folders deep")
                    else:
                        (linked if kind == "link" else waiting).append((entry.path, below))
            if files:
                yield Neighbourhood(relative, [Place(path, relative, files)])

    def scope(self, relative: str, *, is_folder: bool) -> str:
        """The folder itself, or the folder that the file lies in."""
        return relative if is_folder else os.path.dirname(relative)  # noqa: PTH120

    def repo_scope(self, root: str, repo: str) -> str | None:
        """This layout knows no repos."""
        return None

    def removal(self, root: str, doomed: FileSet, others: Collection[FileSet]) -> Removal | None:
        """The set's own files. It is asked only of the folder that Ostler fills: others are the person's."""
        shared = {file.path for other in others for file in other.files}
        gone = [file for file in doomed.files if file.path not in shared]
        kept = tuple((file.path, "another model has it too") for file in doomed.files if file.path in shared)
        return Removal(tuple(file.path for file in gone), (), kept, sum(file.size_bytes for file in gone))

    def _enter(self, path: str, entered: set[tuple[int, int]], walk: Walk) -> bool:
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError as error:
            walk.report(path, f"cannot be read: {error.strerror}")
            return False
        identity = (found.st_dev, found.st_ino)
        if identity in entered:
            return False
        entered.add(identity)
        return True

    def _look(self, entry: os.DirEntry[str], root: str, files: dict[str, SeenFile], walk: Walk) -> str | None:
        """Take a file in; say "folder" or "link" (to a folder) where the walk goes on."""
        try:
            if entry.is_symlink():
                return self._look_through(entry, root, files, walk)
            if entry.is_dir(follow_symlinks=False):
                return "folder"
            if entry.is_file(follow_symlinks=False):
                files[entry.name] = seen(entry.path, entry.stat(follow_symlinks=False))
        except OSError as error:
            walk.report(entry.path, f"cannot be read: {error.strerror}")
        return None

    def _look_through(
        self, entry: os.DirEntry[str], root: str, files: dict[str, SeenFile], walk: Walk
    ) -> str | None:
        if not _leads_inside(entry.path, root):
            walk.report(entry.path, "is a link that leads out of the root, to nothing, or in a circle")
            return None
        if Path(entry.path).is_dir():
            return "link"
        if found := regular(entry.path):
            files[entry.name] = found
        return None


def _leads_inside(path: str, root: str) -> bool:
    try:
        target = os.path.realpath(path, strict=True)
    except OSError:
        return False
    real_root = os.path.realpath(root)
    return target == real_root or target.startswith(real_root.rstrip("/") + "/")
