"""Deleting files that a person named: first a plan, then the act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ostler.library.filesets import FileSet

InUse = Callable[[Path], str | None]
"""Says which model that is not stopped uses a path; None for nobody."""


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """What deleting a file set would do.

    `delete` are the paths that go (links and blobs), `keep` those of the set that stay with the
    reason, `freed_bytes` what the disk gets back.
    """

    file_set: FileSet
    delete: tuple[Path, ...]
    keep: tuple[tuple[Path, str], ...]
    freed_bytes: int
    in_use: InUse = field(compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "file_set": self.file_set.id,
            "name": self.file_set.name,
            "delete": [str(path) for path in self.delete],
            "keep": [{"path": str(path), "reason": reason} for path, reason in self.keep],
            "freed_bytes": self.freed_bytes,
        }
