"""Questions about disks."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

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
