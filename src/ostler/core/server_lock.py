"""One server per data directory: a lock that the operating system drops when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostler.core.errors import Conflict, NotAllowed


class DataDirInUse(Conflict):
    """Another server runs on this data directory."""


class DataDirUnusable(NotAllowed):
    """The data directory cannot be written."""


class ServerLock:
    """The lock file `server.lock`, which holds the pid of its holder, and `server.json`, which tells
    clients where the server listens once it does.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._info = data_dir / "server.json"
        self._fd: int | None = None

    def take(self) -> None:
        """Make the data directory (mode 0700) and lock it.

        Raises DataDirInUse naming the holder, or DataDirUnusable.
        """
        hint = "Choose another with --data-dir or OSTLER_DATA_DIR, or change its permissions."
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._data_dir / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirUnusable(
                f"the data directory {self._data_dir} cannot be written: {error.strerror}", hint=hint
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder that died may have left its note: it does not speak for us.
            self._info.unlink(missing_ok=True)
            os.ftruncate(fd, 0)
            os.write(fd, str(os.getpid()).encode())
        except BlockingIOError:
            os.close(fd)
            holder = read_server_info(self._data_dir) or {"pid": lock_holder(self._data_dir)}
            pid, url = holder.get("pid") or "unknown", holder.get("url")
            raise DataDirInUse(
                f"an Ostler server already uses {self._data_dir}: pid {pid} "
                + (f"at {url}" if url else "(it is starting)"),
                hint="Use that one, end it with `ostler serve --stop`, or choose another --data-dir.",
                pid=holder.get("pid"),
                url=holder.get("url"),
            ) from None
        except OSError as error:
            os.close(fd)
            raise DataDirUnusable(
                f"{self._data_dir} cannot be locked and written: {error.strerror}", hint=hint
            ) from error
        self._fd = fd

    def publish(self, info: Mapping[str, Any]) -> None:
        """Write who and where we are, in one step."""
        draft = self._info.with_suffix(".json.new")
        draft.write_text(json.dumps(dict(info)))
        draft.replace(self._info)

    def release(self) -> None:
        """Take the note away and unlock. Safe to call twice."""
        if self._fd is not None:
            self._info.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None


def lock_holder(data_dir: Path) -> int | None:
    """The pid of the server that took this data directory last, before it listens too."""
    try:
        return int((data_dir / "server.lock").read_bytes()[:20])
    except (OSError, ValueError):
        return None


def read_server_info(data_dir: Path) -> dict[str, Any] | None:
    """What the last server here wrote about itself ({pid, url, ...}), None if there is nothing."""
    try:
        info = json.loads((data_dir / "server.json").read_text())
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None
