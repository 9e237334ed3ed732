"""What a layout has to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ostler.library.filesets import FileSet
from ostler.library.scanning import Neighbourhood, Walk


@dataclass(frozen=True, slots=True)
class Removal:
    """What deleting comes down to, in this order: `files` are unlinked, then `folders` go if empty.

    `keep` are files of the set that stay, each with the reason; `freed_bytes` what the disk gets back.
    """

    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    keep: tuple[tuple[Path, str], ...]
    freed_bytes: int


class Layout(Protocol):
    """One way to arrange model files under a root. Every method is blocking and runs in a thread."""

    name: str
    names_others: bool
    """Its files may be further names of files in other roots; those are listed there only."""

    def scan(self, root: str, walk: Walk, within: str | None = None) -> Iterator[Neighbourhood]:
        """Everything under `root`, or only what lies at `within`, relative to it."""

    def scope(self, relative: str, *, is_folder: bool) -> str:
        """The `within` whose scan finds the file set that the path `relative` belongs to."""

    def repo_scope(self, root: str, repo: str) -> str | None:
        """The `within` of a Hub repo; None where it is not here or this layout knows no repos."""

    def removal(self, root: str, doomed: FileSet, others: Collection[FileSet]) -> Removal | None:
        """What deleting `doomed` takes while `others` stay; None if this layout never deletes."""
