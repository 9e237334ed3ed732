"""What the worker is asked for: JSON on its stdin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ostler.reshaping.layout import NewFile, merged, split

STAGING = ".ostler-reshaping"


@dataclass(frozen=True, slots=True)
class Order:
    """A merge (`sources` are all parts, in order) or a split (one source, and a limit of each part).

    `name` is the new file's name without its ending; `folder` where the result goes; `key` names the
    folder in it, hidden, in which it grows.
    """

    kind: str
    sources: tuple[str, ...]
    name: str
    folder: str
    key: str
    max_bytes: int | None = None
    max_tensors: int | None = None

    @property
    def staging(self) -> Path:
        """Where the files are until they are whole: on the same disk as the target."""
        return Path(self.folder, STAGING, self.key)

    def files(self) -> tuple[NewFile, ...]:
        """What will be written. Blocking: reads headers. Raises what `layout` raises."""
        paths = [Path(source) for source in self.sources]
        if self.kind == "merge":
            return (merged(paths, f"{self.name}.gguf"),)
        return split(paths[0], self.name, max_bytes=self.max_bytes, max_tensors=self.max_tensors)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        """The inverse of `to_json`."""
        return cls(**{**data, "sources": tuple(data["sources"])})
