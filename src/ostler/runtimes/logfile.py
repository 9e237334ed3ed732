"""An engine's log: a file that the engine itself writes to, rotated under its hands.

Engines outlive the server, so no pipe of ours may stand between them and their log. They hold the
file open for appending; rotation copies it to `<name>.1` and empties it, and readers notice by the
generation that this class counts. What is written between copy and emptying (microseconds) is lost.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LINE_BYTES = 64 * 1024
READ_BYTES = 256 * 1024
LOGS_KEPT = 3
"""Logs kept per model, the newest; older ones of ended engines are deleted."""


def log_path(folder: Path, model_id: int, instance_id: int) -> Path:
    """Where the log of one launch is kept."""
    return folder / f"{model_id}-{instance_id}.log"


def old_logs(folder: Path, kept: int) -> list[Path]:
    """The logs in a folder beyond the newest `kept` of each model."""
    by_model: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.glob("*-*.log"):
        model, _, instance = path.stem.partition("-")
        if instance.isdecimal():
            by_model.setdefault(model, []).append((int(instance), path))
    return [path for logs in by_model.values() for _, path in sorted(logs, reverse=True)[kept:]]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader is: a byte offset within one generation of the file."""

    generation: int
    offset: int


class LogFile:
    """One log and its previous part. All methods block for the disk: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.previous = path.with_name(path.name + ".1")
        self._lock = threading.Lock()
        self._generation = 0

    def open_for_child(self) -> int:
        """A file descriptor for an engine to write to; begins an empty log."""
        self.previous.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.path, flags, 0o600)

    def replace(self, chunks: Iterable[bytes]) -> None:
        """Make these bytes the whole log, in one step."""
        with self._lock:
            draft = self.path.with_name(self.path.name + ".new")
            with draft.open("wb") as target:
                draft.chmod(0o600)
                target.writelines(chunks)
            draft.replace(self.path)
            self.previous.unlink(missing_ok=True)
            self._generation += 1

    def delete(self) -> None:
        """Forget it, with its previous part."""
        self.previous.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def rotate(self, limit_bytes: int) -> bool:
        """Move the content to `previous` once it is larger than the limit. True when it was."""
        with self._lock:
            try:
                if self.path.stat().st_size <= limit_bytes:
                    return False
                draft = self.path.with_name(self.path.name + ".new")
                with self.path.open("rb") as source, draft.open("wb") as target:
                    draft.chmod(0o600)
                    shutil.copyfileobj(source, target, READ_BYTES)
                    target.flush()
                    target.write(source.read())
                draft.replace(self.previous)
                os.truncate(self.path, 0)
            except FileNotFoundError:
                return False
            self._generation += 1
            return True

    def read(self, position: Position) -> tuple[bytes, Position]:
        """The next bytes after a position (empty at the end), across one rotation."""
        with self._lock:
            if position.generation == self._generation - 1:
                rest = _read(self.previous, position.offset)
                if rest:
                    return rest, Position(position.generation, position.offset + len(rest))
            if position.generation != self._generation:
                position = Position(self._generation, 0)
            data = _read(self.path, position.offset)
            return data, Position(self._generation, position.offset + len(data))

    def tail(self, lines: int | None) -> Position:
        """The position from which the last `lines` lines follow (None: everything kept)."""
        with self._lock:
            everything = Position(self._generation - 1, 0)
            if lines is None:
                return everything
            offset, missing = _last_lines(self.path, lines)
            if missing <= 0:
                return Position(self._generation, offset)
            offset, missing = _last_lines(self.previous, missing)
            return everything if missing else Position(self._generation - 1, offset)


class LineCutter:
    """Bytes in, whole lines out; a line longer than MAX_LINE_BYTES comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._pieces(line)
        while len(self._rest) > MAX_LINE_BYTES:
            end = _whole_characters(self._rest)
            yield self._text(self._rest[:end])
            self._rest = self._rest[end:]

    def finish(self) -> Iterator[str]:
        """What is left without an end of line."""
        if self._rest:
            yield from self._pieces(self._rest)
            self._rest = b""

    def _pieces(self, line: bytes) -> Iterator[str]:
        while len(line) > MAX_LINE_BYTES:
            end = _whole_characters(line)
            yield self._text(line[:end])
            line = line[end:]
        yield self._text(line)

    def _text(self, line: bytes) -> str:
        return line.rstrip(b"\r").decode("utf-8", errors="replace")


def _whole_characters(line: bytes) -> int:
    """Where to cut a line that is too long, so that no character of UTF-8 is cut in two."""
    for end in range(MAX_LINE_BYTES, MAX_LINE_BYTES - 4, -1):
        if line[end] & 0xC0 != 0x80:  # the byte after the cut begins a character
            return end
    return MAX_LINE_BYTES


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(READ_BYTES)
    except FileNotFoundError:
        return b""


def _last_lines(path: Path, lines: int) -> tuple[int, int]:
    """(offset where the last `lines` lines begin, how many lines the file is short of that)."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            if lines <= 0:
                return end, 0
            if end == 0:
                return 0, lines
            found, position = 0, end - 1  # a line end at the very end begins no further line
            while position > 0:
                start = max(0, position - READ_BYTES)
                file.seek(start)
                block = file.read(position - start)
                at = len(block)
                while (at := block.rfind(b"\n", 0, at)) >= 0:
                    found += 1
                    if found == lines:
                        return start + at + 1, 0
                position = start
            return 0, lines - found - 1
    except FileNotFoundError:
        return 0, lines
