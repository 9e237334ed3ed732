"""A file that has partly arrived: its bytes, and beside them a map of which are there.

The map is written after the bytes it speaks of, so a killed process only forgets a little. After
a power cut it may promise bytes that never reached the disk: the hash finds that out.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

SAVE_EVERY_BYTES = 4 * 1024 * 1024
HASH_CHUNK = 1024 * 1024
MAP_BYTES = 4096

Span = tuple[int, int]
"""[begin, end) in bytes."""


class Partial:
    """The staged contents of one file, written by several threads."""

    def __init__(self, folder: Path, etag: str, size: int) -> None:
        self.path = folder / f"{etag}.part"
        self._map = folder / f"{etag}.map"
        self._size = size
        self._lock = threading.Lock()
        self._spans = _read_map(self._map, size) if self.path.exists() else []
        self._unsaved = 0
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if os.fstat(self._fd).st_size > size:
            os.ftruncate(self._fd, size)
        self._map_fd = os.open(self._map, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self.save()

    @property
    def done_bytes(self) -> int:
        """How much has arrived."""
        with self._lock:
            return _length(self._spans)

    def missing(self, part_bytes: int) -> list[Span]:
        """What has not arrived, in pieces of at most `part_bytes`."""
        with self._lock:
            return [
                (begin, min(begin + part_bytes, gap_end))
                for gap_begin, gap_end in gaps(self._spans, self._size)
                for begin in range(gap_begin, gap_end, part_bytes)
            ]

    def write(self, offset: int, data: memoryview) -> int:
        """Keep bytes; how many of them are new. Raises OSError, ENOSPC among them."""
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], offset + written)
        with self._lock:
            before = _length(self._spans)
            self._spans = merged([*self._spans, (offset, offset + written)])
            new = _length(self._spans) - before
            self._unsaved += written
            save = self._unsaved >= SAVE_EVERY_BYTES
        if save:
            self.save()
        return new

    def front(self) -> int:
        """How many bytes from the beginning on are there without a gap."""
        with self._lock:
            return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    def hash_up_to(self, digest: hashlib._Hash, begin: int, end: int) -> None:
        """Feed the bytes [begin, end) to a hash."""
        while begin < end:
            data = os.pread(self._fd, min(HASH_CHUNK, end - begin), begin)
            if not data:
                return
            digest.update(data)
            begin += len(data)

    def save(self) -> None:
        """Write the map, in place: its block is there from the beginning, so a full disk cannot stop it."""
        with self._lock:
            self._unsaved = 0
            text = _map_text(self._size, self._spans)
            os.pwrite(self._map_fd, text.encode().ljust(MAP_BYTES), 0)

    def restart(self) -> None:
        """Forget everything that has arrived."""
        with self._lock:
            self._spans = []
            os.ftruncate(self._fd, 0)
        self.save()

    def finish(self, target: Path) -> None:
        """Bring the bytes to the disk for good, then move the file to its place in one step."""
        os.fsync(self._fd)
        target.parent.mkdir(parents=True, exist_ok=True)  # gone where the repo's last model was deleted
        self.path.replace(target)
        self._close()
        self._map.unlink(missing_ok=True)
        sync_folder(target.parent)

    def close(self) -> None:
        """Let go of the file; what has arrived is kept for the next time."""
        self.save()
        self._close()

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._map_fd)


def staged_bytes(folder: Path, etag: str, size: int) -> int:
    """How much of a file a former attempt left in the staging folder."""
    if not (folder / f"{etag}.part").exists():
        return 0
    return _length(_read_map(folder / f"{etag}.map", size))


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same bytes in as few spans as possible, in order."""
    result: list[Span] = []
    for begin, end in sorted(spans):
        if begin >= end:
            continue
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((begin, end))
    return result


def gaps(spans: Iterable[Span], size: int) -> list[Span]:
    """What `spans` leave out of [0, size)."""
    result, position = [], 0
    for begin, end in merged(spans):
        if begin > position:
            result.append((position, begin))
        position = max(position, end)
    if position < size:
        result.append((position, size))
    return result


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError:
        return  # some network file systems cannot; the rename itself has been done
    finally:
        os.close(fd)


def _length(spans: Iterable[Span]) -> int:
    return sum(end - begin for begin, end in spans)


def _map_text(size: int, spans: list[Span]) -> str:
    """The map as JSON of at most MAP_BYTES; what does not fit is fetched again."""
    while len(text := json.dumps({"size": size, "spans": spans})) > MAP_BYTES:
        spans = spans[: len(spans) // 2]
    return text


def _read_map(path: Path, size: int) -> list[Span]:
    """The spans of a map that belongs to a file of this size; nothing when it cannot be trusted."""
    try:
        data = json.loads(path.read_text())
        spans = [(int(begin), int(end)) for begin, end in data["spans"]]
        if data["size"] != size or any(not 0 <= begin <= end <= size for begin, end in spans):
            return []
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return merged(spans)
