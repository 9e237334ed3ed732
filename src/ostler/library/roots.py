"""Roots: the folders that the library looks into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Root:
    """A folder with model files. `available`: it exists and can be read now.

    `filled_by_ostler`: downloads go there, and files in it may be deleted by name.
    """

    id: int
    path: Path
    layout: str
    filled_by_ostler: bool
    node: str
    available: bool

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "id": self.id,
            "path": str(self.path),
            "layout": self.layout,
            "filled_by_ostler": self.filled_by_ostler,
            "node": self.node,
            "available": self.available,
        }
