"""Writing new files into a staging folder, and comparing them with what they were made of.

A file that is only partly there is gone on with, so a restart costs little; the comparison at the end
reads every tensor of both sides, so what an earlier try left cannot spoil the result.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ostler.library.errors import BrokenFile
from ostler.reshaping.errors import DifferentTensor, NameTaken
from ostler.reshaping.layout import NewFile, Piece

CHUNK_BYTES = 8 * 1024 * 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
"""How a file system says that it has no hard links."""

Tell = Callable[[str, int], None]
"""Called with a step ("copying", "comparing") and the bytes done since the last call."""


def write_file(new: NewFile, folder: Path, tell: Tell) -> Path:
    """Write one file, going on where an earlier try ended. Blocking. Raises OSError."""
    path = folder / new.name
    with Reading() as sources, path.open("r+b" if path.exists() else "w+b") as target:
        have = os.fstat(target.fileno()).st_size
        target.seek(0)
        if have < len(new.header) or target.read(len(new.header)) != new.header:
            have = 0
        first = next((n for n, p in enumerate(new.pieces) if p.at + p.n_bytes > have), len(new.pieces))
        begin = new.pieces[first].at if have and first < len(new.pieces) else have
        target.truncate(begin)
        tell("copying", begin)
        if not have:
            target.seek(0)
            target.write(new.header)
            tell("copying", len(new.header))
        for piece in new.pieces[first if have else 0 :]:
            _write_piece(piece, sources, target.fileno(), tell)
        target.truncate(new.size_bytes)
        target.flush()
        os.fsync(target.fileno())
    return path


def compare(new: NewFile, path: Path, tell: Tell) -> None:
    """Read a written file again: header and each tensor. Raises DifferentTensor, OSError. Blocking."""
    with Reading() as sources:
        written = sources.of(path)
        if os.pread(written, len(new.header), 0) != new.header or os.fstat(written).st_size != new.size_bytes:
            raise DifferentTensor(f"the header of {new.name} is not what was written")
        for piece in new.pieces:
            ours = _digest(written, piece.at, piece.n_bytes, tell)
            theirs = _digest(sources.of(piece.source), piece.begin, piece.n_bytes, None)
            if ours != theirs:
                raise DifferentTensor(f"the tensor {piece.name[:80]!r} in {new.name} differs from its source")


def is_same(new: NewFile, path: Path) -> bool:
    """True if the file there has that header and size: it was made of the same before."""
    try:
        with path.open("rb") as file:
            return file.read(len(new.header)) == new.header and path.stat().st_size == new.size_bytes
    except OSError:
        return False


def put_in_place(written: Sequence[Path], folder: Path) -> None:
    """Give finished files their names, the first part last, so that a half set never looks whole.

    Blocking. Raises OSError, and NameTaken where a name was taken meanwhile.
    """
    for path in reversed(written):
        _give_name(path, folder / path.name)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_name(path: Path, target: Path) -> None:
    """Unlike a rename, this never takes the place of another file."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise NameTaken(f"there is a file {target} already") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise NameTaken(f"there is a file {target} already") from None
        path.rename(target)
    else:
        path.unlink()


class Reading:
    """Open files by path, closed together at the end."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, path: Path) -> int:
        """A descriptor to read the file with."""
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._stack.callback(os.close, self._open[path])
        return self._open[path]


def _write_piece(piece: Piece, sources: Reading, target: int, tell: Tell) -> None:
    at = piece.at
    for chunk in _chunks(sources.of(piece.source), piece.begin, piece.n_bytes, piece.source):
        view = memoryview(chunk)
        while view:
            done = os.pwrite(target, view, at)
            view, at = view[done:], at + done
        tell("copying", len(chunk))


def _digest(descriptor: int, begin: int, length: int, tell: Tell | None) -> bytes:
    found = hashlib.blake2b()
    for chunk in _chunks(descriptor, begin, length, None):
        found.update(chunk)
        if tell is not None:
            tell("comparing", len(chunk))
    return found.digest()


def _chunks(descriptor: int, begin: int, length: int, path: Path | None) -> Iterator[bytes]:
    end = begin + length
    while begin < end:
        chunk = os.pread(descriptor, min(CHUNK_BYTES, end - begin), begin)
        if not chunk:
            raise BrokenFile(f"{path or 'a file'} became shorter while it was read")
        begin += len(chunk)
        yield chunk
