"""Deleting files that a person named: first a plan, then the act."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from ostler.library.errors import DeletionFailed, DeletionNotAllowed, FileInUse
from ostler.library.filesets import FileSet
from ostler.library.layouts.base import Removal
from ostler.library.paths import is_inside
from ostler.library.roots import Root

InUse = Callable[[Path], str | None]
"""Says which model that is not stopped uses a path; None for nobody. Called in a thread."""


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """What deleting a file set would do.

    `delete` are the paths that go (links and blobs), `folders` those that go if they are empty then,
    `keep` the files of the set that stay with the reason, `freed_bytes` what the disk gets back.
    """

    root: Root
    file_set: FileSet
    delete: tuple[Path, ...]
    folders: tuple[Path, ...]
    keep: tuple[tuple[Path, str], ...]
    freed_bytes: int
    in_use: InUse = field(compare=False, repr=False)

    @classmethod
    def of(cls, root: Root, file_set: FileSet, removal: Removal | None, in_use: InUse) -> DeletePlan:
        """The plan for a removal. Raises DeletionNotAllowed where the layout never deletes."""
        if removal is None:
            raise _not_allowed(root, file_set)
        return cls(root, file_set, removal.files, removal.folders, removal.keep, removal.freed_bytes, in_use)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "file_set": self.file_set.id,
            "name": self.file_set.name,
            "delete": [str(path) for path in self.delete],
            "keep": [{"path": str(path), "reason": reason} for path, reason in self.keep],
            "freed_bytes": self.freed_bytes,
        }


def refuse_unless_filled(root: Root, file_set: FileSet) -> None:
    """Raise DeletionNotAllowed for a root that belongs to the person."""
    if not root.filled_by_ostler:
        raise _not_allowed(root, file_set)


def check_not_in_use(file_set: FileSet, in_use: InUse) -> None:
    """Raise FileInUse if a model that is not stopped uses one of the files."""
    refuse_if_used(file_set.name, {file_set.path, *(file.path for file in file_set.files)}, in_use)


def refuse_if_used(what: str, paths: Collection[Path], in_use: InUse) -> None:
    """Raise FileInUse if a model that is not stopped uses one of the paths, links followed. Blocking."""
    for path in sorted({*paths, *(Path(os.path.realpath(path)) for path in paths)}):
        if model := in_use(path):
            raise FileInUse(
                f"{what} is in use by the model {model}",
                hint=f"Stop it first: ostler stop {quote(model)}",
                model=model,
                path=str(path),
            )


def remove(plan: DeletePlan) -> None:
    """Delete what the plan says, links before blobs. Blocking. Raises DeletionFailed."""
    carry_out(plan.root.path, plan.delete, plan.folders)


def carry_out(base: Path, files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Delete files that lie below `base`, then those folders that are empty. Raises DeletionFailed."""
    done: list[str] = []
    for path in files:
        if not is_inside(path.parent, base):
            raise DeletionFailed(f"{path} is not inside {base} any more", deleted=done)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DeletionFailed(
                f"{path} cannot be deleted: {error.strerror}",
                hint="Check the permissions of its folder, then delete the rest the same way.",
                deleted=done,
            ) from error
        done.append(str(path))
    for folder in folders:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                raise DeletionFailed(f"{folder} cannot be removed: {error.strerror}", deleted=done) from error


def _not_allowed(root: Root, file_set: FileSet) -> DeletionNotAllowed:
    return DeletionNotAllowed(
        f"{file_set.name} is in {root.path}, which Ostler does not fill and never deletes from",
        hint=f"It is your own file; delete it yourself: {file_set.path}",
        path=str(file_set.path),
        root=str(root.path),
    )
