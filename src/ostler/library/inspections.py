"""What headers said, kept by path, size, modification time and inode: in memory and in the database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from ostler.core.database import Database
from ostler.library.errors import BrokenFile, NotAModelFile, PathNotFound, UnreadableFile, UnsupportedFile
from ostler.library.scanning import SeenFile
from ostler.library.summaries import Summary
from ostler.library.tables import InspectionRow

ROWS_AT_ONCE = 100

Reader = Callable[[Path], Summary]
_Signature = tuple[int, int, int]


class Inspections:
    """The cache of summaries. `read` is blocking and may be called from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[_Signature, Summary]] = {}
        self._stored: dict[str, tuple[_Signature, Mapping[str, Any]]] = {}
        self._unsaved: dict[str, tuple[_Signature, Summary]] = {}
        self._lock = threading.Lock()
        self._loaded = False

    async def load(self) -> None:
        """Read what earlier runs have stored, once."""
        if self._loaded:
            return
        columns = (
            InspectionRow.path,
            InspectionRow.size_bytes,
            InspectionRow.mtime_ns,
            InspectionRow.inode,
            InspectionRow.facts,
        )
        async with self._database.read() as session:
            found = await session.stream(select(*columns))
            # In pieces: between them the event loop serves others.
            async for rows in found.partitions(ROWS_AT_ONCE):
                with self._lock:
                    for path, size_bytes, mtime_ns, inode, facts in rows:
                        self._stored.setdefault(path, ((size_bytes, mtime_ns, inode), facts))
        self._loaded = True

    def read(self, file: SeenFile, reader: Reader) -> Summary:
        """The summary of `file`, by `reader` if it changed since it was last read.

        Never raises for a bad file: the summary has the error then.
        """
        signature = (file.size_bytes, file.mtime_ns, _as_signed(file.inode))
        known = self._lookup(file.path)
        if known is not None and known[0] == signature:
            return known[1]
        try:
            summary = reader(Path(file.path))
        except (UnreadableFile, PathNotFound) as error:
            return Summary(error=error.message)  # may be other tomorrow without a change of the file
        except (BrokenFile, UnsupportedFile, NotAModelFile) as error:
            summary = Summary(error=error.message)
        with self._lock:
            self._known[file.path] = self._unsaved[file.path] = (signature, summary)
        return summary

    def _lookup(self, path: str) -> tuple[_Signature, Summary] | None:
        """What is known of a file; an entry from the database is unpacked when it is first asked for."""
        with self._lock:
            if (stored := self._stored.pop(path, None)) and path not in self._known:
                self._known[path] = (stored[0], Summary.from_json(stored[1]))
            return self._known.get(path)

    async def save(self) -> None:
        """Store what was read since the last time."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
        for chunk in _chunks(list(unsaved.items())):
            rows = [_row(path, *entry) for path, entry in chunk]
            async with self._database.write() as session:
                await session.execute(self._upsert(), rows)

    async def forget_all_but(self, under: Iterable[str], present: Collection[str]) -> None:
        """Drop entries of files under these folders that are not `present` any more."""
        folders = tuple(folder.rstrip("/") + "/" for folder in under)
        with self._lock:
            known = {*self._known, *self._stored}
            gone = [path for path in known if path.startswith(folders) and path not in present]
            for path in gone:
                self._known.pop(path, None)
                self._stored.pop(path, None)
                self._unsaved.pop(path, None)
        for chunk in _chunks(gone):
            async with self._database.write() as session:
                await session.execute(delete(InspectionRow).where(InspectionRow.path.in_(chunk)))

    def _upsert(self) -> Any:
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        statement: Any = insert(InspectionRow)
        changed = {n: statement.excluded[n] for n in ("size_bytes", "mtime_ns", "inode", "facts")}
        return statement.on_conflict_do_update(index_elements=["path"], set_=changed)


def _row(path: str, signature: _Signature, summary: Summary) -> dict[str, Any]:
    size_bytes, mtime_ns, inode = signature
    return {
        "path": path,
        "size_bytes": size_bytes,
        "mtime_ns": mtime_ns,
        "inode": inode,
        "facts": summary.to_json(),
    }


def _as_signed(number: int) -> int:
    """Some file systems number inodes over 63 bits; the database's integers are signed."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _chunks(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
