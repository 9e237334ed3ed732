"""Reading a file's bytes by position, a window at a time.

A mapped file ends the whole process with SIGBUS when somebody truncates it while it is being read (a
copy over a file does that), so the readers here use positioned reads instead: a short read is then an
error like any other. The same code reads a header over HTTP ranges, given another `read` function.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ostler.library.errors import BrokenFile, NotAModelFile, PathNotFound, UnreadableFile

FIRST_WINDOW = 64 * 1024
WINDOW = 1024 * 1024
MAX_HEADER_BYTES = 512 * WINDOW
"""No header is larger: a jump beyond it is refused, so that what is read stays bounded."""

ReadAt = Callable[[int, int], bytes]
"""`read(offset, length)` gives up to `length` bytes from `offset`; fewer only at the end."""


class Window:
    """A forward-moving view of a file of `size_bytes`.

    `buffer` holds the bytes from `start`; `ensure` moves it. Reading past the end raises BrokenFile.
    """

    def __init__(self, read: ReadAt, size_bytes: int, first: int = FIRST_WINDOW) -> None:
        self._read = read
        self._next = first
        self.size_bytes = size_bytes
        self.start = 0
        self.buffer = b""

    def ensure(self, offset: int, length: int, what: str) -> int:
        """Make `length` bytes at `offset` present; gives their index in `buffer`."""
        index = offset - self.start
        if index >= 0 and index + length <= len(self.buffer):
            return index
        if offset + length > self.size_bytes:
            raise BrokenFile(
                f"the file ends within {what}: {offset + length} bytes are needed, it has {self.size_bytes}",
                needed_bytes=min(offset + length, 2**63 - 1),
                size_bytes=self.size_bytes,
            )
        if offset + length > MAX_HEADER_BYTES:
            raise BrokenFile(f"a header of more than {MAX_HEADER_BYTES} bytes cannot be right ({what})")
        wanted = min(max(self._next, length), self.size_bytes - offset)
        self.buffer = self._read(offset, wanted)
        self.start = offset
        self._next = WINDOW
        if len(self.buffer) < length:
            raise BrokenFile(f"the file became shorter while it was read, within {what}")
        return 0

    def reach(self, offset: int, length: int) -> int:
        """Make up to `length` bytes at `offset` present, fewer at the end; gives their index in `buffer`."""
        return self.ensure(offset, min(length, self.size_bytes - offset), "the header")

    def bytes_at(self, offset: int, length: int, what: str) -> bytes:
        """A copy of `length` bytes at `offset`."""
        index = self.ensure(offset, length, what)
        return self.buffer[index : index + length]


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[int, int]]:
    """Open a regular file for reading: its descriptor and size in bytes.

    A pipe or a device is refused without waiting for it. Raises PathNotFound, NotAModelFile, UnreadableFile.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise PathNotFound(f"there is no file {path}", path=str(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UnreadableFile(f"{path} cannot be read: {reason}", path=str(path)) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotAModelFile(f"{path} is not a regular file", path=str(path))
        yield descriptor, found.st_size
    finally:
        os.close(descriptor)


def reader_of(descriptor: int, path: Path) -> ReadAt:
    """Positioned reads of an open file. A failing disk raises UnreadableFile."""

    def read(offset: int, length: int) -> bytes:
        try:
            return os.pread(descriptor, length, offset)
        except OSError as error:
            raise UnreadableFile(f"{path} cannot be read: {error.strerror}", path=str(path)) from error

    return read
