"""Questions about disks."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""How a system says that nothing more can be written."""


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder that need not exist yet. Blocking."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
