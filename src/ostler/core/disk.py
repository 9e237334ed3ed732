"""Questions about disks."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from ostler.core.errors import DiskFull
from ostler.core.sizes import size_text

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""How a system says that nothing more can be written."""


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there. Blocking."""
    while not folder.exists():
        folder = folder.parent
    return folder


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder that need not exist yet. Blocking."""
    return shutil.disk_usage(nearest(folder)).free


def no_room(what: str, need_bytes: int, free_bytes: int, reserve_bytes: int, *, hint: str) -> DiskFull:
    """The error for what would take more than the disk has, before its first byte is written."""
    need, free, reserve = size_text(need_bytes), size_text(free_bytes), size_text(reserve_bytes)
    return DiskFull(
        f"{what} needs {need}, {free} is free and {reserve} of it is to stay free"
        " (setting disk_reserve_bytes)",
        hint=hint,
        need_bytes=need_bytes,
        free_bytes=free_bytes,
        reserve_bytes=reserve_bytes,
    )
