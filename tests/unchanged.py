"""A models folder in which nothing may change: what every file and folder in it is, byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

Print = tuple[int, int, int, str]
"""Mode, time of change in nanoseconds, size in bytes, digest (of a link, where it leads)."""


def fingerprints(folder: Path) -> dict[str, Print]:
    """By name, of everything in a folder and of the folder itself."""
    return {str(path.relative_to(folder)): _print(path) for path in sorted([folder, *folder.rglob("*")])}


def _print(path: Path) -> Print:
    found = path.lstat()
    if path.is_symlink():
        content = str(path.readlink())
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found.st_mode, found.st_mtime_ns, found.st_size, content
