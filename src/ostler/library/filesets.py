"""File sets: the files that load as one thing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ostler.library.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class File:
    """One file of a file set. `path` is where it is found (in a hub cache: the snapshot's link)."""

    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileSet:
    """A GGUF with its shards and projector, or a safetensors folder.

    `id` stays the same as long as root and place are the same. `path` is what an engine is given:
    the first shard, or the folder. `name` is a name that a model of it could have. `repo` is
    "org/name" and `revision` a commit, both only where the layout knows them; `refs` are branches
    and tags that point to that commit. `tag` is the quantization's name in the file name ("Q4_K_M"),
    or the one read from the tensors. `missing` names absent files, relative to the set's folder.
    `error` is one sentence where the files cannot be used; `facts` is None then.
    """

    id: str
    root_id: int | None
    layout: str | None
    name: str
    path: Path
    files: tuple[File, ...]
    size_bytes: int
    format: str
    mmproj: Path | None
    repo: str | None
    revision: str | None
    tag: str | None
    complete: bool
    missing: tuple[str, ...]
    facts: ModelFacts | None
    error: str | None
    modified_at: datetime
    refs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "id": self.id,
            "root_id": self.root_id,
            "layout": self.layout,
            "name": self.name,
            "path": str(self.path),
            "files": [{"path": str(file.path), "size_bytes": file.size_bytes} for file in self.files],
            "size_bytes": self.size_bytes,
            "format": self.format,
            "mmproj": str(self.mmproj) if self.mmproj else None,
            "repo": self.repo,
            "revision": self.revision,
            "refs": list(self.refs),
            "tag": self.tag,
            "complete": self.complete,
            "missing": list(self.missing),
            "facts": self.facts.to_json() if self.facts else None,
            "error": self.error,
            "modified_at": self.modified_at.isoformat(),
        }


def file_set_id(root: Path | None, place: str) -> str:
    """The id of the set found at `place` (relative to `root`): 16 hexadecimal digits."""
    return hashlib.sha256(f"{root or ''}\0{place}".encode()).hexdigest()[:16]
