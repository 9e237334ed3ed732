"""What a scan of the disk sees, before any header is read.

A scan is bounded: folders by depth, entries by number, each folder entered once (so links in a circle
end), links followed only while they stay inside the boundary. What is passed over is reported.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_DEPTH = 16
MAX_ENTRIES = 500_000
MAX_PROBLEMS = 200


class SeenFile(NamedTuple):
    """A regular file and what tells that it has changed. `path` is absolute; links lead to the numbers."""

    path: str
    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def contents(self) -> tuple[int, int, int]:
        """The same for two names of one file."""
        return self.inode, self.size_bytes, self.mtime_ns


class Problem(NamedTuple):
    """Something that was passed over, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """One folder with its regular files by name. `relative` is its path from the root, "" for the root."""

    path: str
    relative: str
    files: Mapping[str, SeenFile]


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Places whose files may belong together: a model's projector is looked for in here.

    `key` tells it from others of its root. For layouts that know repos, `repo`, `revision` (commit)
    and `refs` (branches and tags that point to it) say what it holds; `base` is where file names
    of the repo begin.
    """

    key: str
    places: Sequence[Place]
    repo: str | None = None
    revision: str | None = None
    refs: tuple[str, ...] = ()
    base: str = ""


@dataclass(slots=True)
class Walk:
    """One scan's limits, and the problems it met. `remembered` are small files that were read before."""

    problems: list[Problem] = field(default_factory=list)
    entries: int = 0
    remembered: dict[SeenFile, Any] = field(default_factory=dict)

    def report(self, path: str, reason: str) -> None:
        """Remember that `path` was passed over."""
        if len(self.problems) < MAX_PROBLEMS:
            shown = path.encode("utf-8", "replace").decode()
            self.problems.append(Problem(shown, reason))

    def entries_of(self, path: str) -> list[os.DirEntry[str]]:
        """The folder's entries by name, without hidden ones and those with names that are no text."""
        try:
            with os.scandir(path) as found:
                entries = sorted(self._usable(found), key=lambda entry: entry.name)
        except OSError as error:
            self.report(path, f"cannot be read: {error.strerror}")
            return []
        return entries

    def _usable(self, found: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in found:
            self.entries += 1
            if self.entries > MAX_ENTRIES:
                self.report(entry.path, f"more than {MAX_ENTRIES} entries: the rest is not listed")
                return
            if entry.name.startswith("."):
                continue
            if entry.name.isprintable():
                yield entry
            else:
                self.report(entry.path, "the name is not printable text")


def seen(path: str, found: os.stat_result) -> SeenFile:
    """The file at `path` as `found` describes it."""
    return SeenFile(path, found.st_size, found.st_mtime_ns, found.st_ino)


def regular(path: str) -> SeenFile | None:
    """The regular file at `path`, links followed; None for anything else."""
    try:
        found = os.stat(path)  # noqa: PTH116 - strings here: thousands of files
    except (OSError, ValueError):
        return None
    return seen(path, found) if stat.S_ISREG(found.st_mode) else None
