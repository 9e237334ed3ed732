"""What sort of machine the server runs on: its system, a container, Windows' Linux."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`system` is linux, darwin or windows."""

    system: str
    is_container: bool
    is_wsl: bool


def surroundings() -> Surroundings:
    """Where this process runs; reads a few files."""
    system = platform.system().lower()
    in_container = any(Path(name).exists() for name in _CONTAINER_FILES)
    return Surroundings(system, in_container, "microsoft" in platform.release().lower())
