"""Roots: the folders that the library looks into."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ostler.core.clock import Clock
from ostler.core.database import Database, row_to_change
from ostler.core.errors import InvalidField
from ostler.core.events import EventLog, NewEvent
from ostler.core.principals import Principal
from ostler.library.errors import NestedRoots, PathNotFound, RootExists, RootIsConfigured, RootNotFound
from ostler.library.layouts import LAYOUTS
from ostler.library.tables import RootRow

BY_SETTINGS = "settings"
"""`added_by` of the roots that the settings name; they follow the settings at each start."""


@dataclass(frozen=True, slots=True)
class Root:
    """A folder with model files. `available`: it exists and can be read now.

    `filled_by_ostler`: downloads go there, and files in it may be deleted by name.
    """

    id: int
    path: Path
    layout: str
    filled_by_ostler: bool
    node: str
    available: bool


class RootStore:
    """The roots of one node, in the database."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, node: str) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._node = node

    async def all(self) -> list[Root]:
        """Every root of this node, configured ones first."""
        rows = await self._rows()
        return await asyncio.to_thread(lambda: [_root(row) for row in rows])

    async def get(self, root_id: int | None) -> Root:
        """Raises RootNotFound."""
        for root in await self.all():
            if root.id == root_id:
                return root
        raise RootNotFound(f"there is no library folder {root_id}", id=root_id)

    async def configure(self, configured: Sequence[tuple[Path, str, bool]]) -> None:
        """Make the configured roots rows: path, layout, and whether Ostler fills it.

        Folders that the settings no longer name are forgotten. Raises NestedRoots.
        """
        paths = [path for path, _, _ in configured]
        wanted = {path: (layout, filled) for path, layout, filled in configured}
        rows = await self._rows()
        added = [
            Path(row.path) for row in rows if row.added_by != BY_SETTINGS and Path(row.path) not in wanted
        ]
        await asyncio.to_thread(_refuse_nested, paths, added)
        async with self._database.write() as session:
            known = {Path(row.path): row for row in await session.scalars(self._mine().with_for_update())}
            for path, row in known.items():
                if row.added_by == BY_SETTINGS and path not in wanted:
                    await session.delete(row)
            for path, (layout, filled) in wanted.items():
                known_row = known.get(path)
                if known_row is None:
                    session.add(self._row(path, layout, filled, BY_SETTINGS))
                else:
                    known_row.layout, known_row.filled_by_ostler = layout, filled
                    known_row.added_by = BY_SETTINGS

    async def add(self, path: Path, layout: str, principal: Principal) -> Root:
        """Raises PathNotFound, InvalidField, NestedRoots, RootExists."""
        if layout not in LAYOUTS:
            raise InvalidField(
                "layout", f"there is no layout {layout!r}", hint=f"One of: {', '.join(LAYOUTS)}"
            )
        if not path.is_absolute() or "\0" in str(path) or not str(path).isprintable():
            raise InvalidField("path", f"{str(path)!r} is not an absolute path")
        path = _normal(path)
        if not await asyncio.to_thread(path.is_dir):
            raise PathNotFound(f"there is no folder {path}", path=str(path))
        others = [Path(row.path) for row in await self._rows()]
        if path in others:
            raise RootExists(f"{path} is in the library already", path=str(path))
        await asyncio.to_thread(_refuse_nested, [path], others)
        async with self._database.write() as session:
            row = self._row(path, layout, False, principal.name)
            session.add(row)
            await session.flush()
            await self._events.add(session, _event("root.added", row, principal))
        return await asyncio.to_thread(_root, row)

    async def remove(self, root_id: int, principal: Principal) -> None:
        """Raises RootNotFound, RootIsConfigured."""
        async with self._database.write() as session:
            row = await row_to_change(session, RootRow, root_id)
            if row is None or row.node != self._node:
                raise RootNotFound(f"there is no library folder {root_id}", id=root_id)
            if row.added_by == BY_SETTINGS:
                raise RootIsConfigured(f"{row.path} comes from the settings", path=row.path)
            await self._events.add(session, _event("root.removed", row, principal))
            await session.delete(row)

    async def _rows(self) -> list[RootRow]:
        async with self._database.read() as session:
            return list(await session.scalars(self._mine()))

    def _mine(self) -> Any:
        return select(RootRow).where(RootRow.node == self._node).order_by(RootRow.id)

    def _row(self, path: Path, layout: str, filled: bool, added_by: str) -> RootRow:
        return RootRow(
            path=str(path),
            layout=layout,
            filled_by_ostler=filled,
            node=self._node,
            added_at=self._clock.now(),
            added_by=added_by,
        )


def _normal(path: Path) -> Path:
    """Without '.', '..' and double slashes; links stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _root(row: RootRow) -> Root:
    path = Path(row.path)
    available = path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    return Root(row.id, path, row.layout, row.filled_by_ostler, row.node, available)


def _refuse_nested(new: Iterable[Path], others: Iterable[Path]) -> None:
    """Raise NestedRoots if one of `new` lies in another root, links followed, or the other way round."""
    checked = [(path, Path(os.path.realpath(path))) for path in others]
    for path in new:
        real = Path(os.path.realpath(path))
        for other, real_other in checked:
            if real.is_relative_to(real_other) or real_other.is_relative_to(real):
                inner, outer = (path, other) if real.is_relative_to(real_other) else (other, path)
                raise NestedRoots(f"{inner} lies inside {outer}", inner=str(inner), outer=str(outer))
        checked.append((path, real))


def _event(kind: str, row: RootRow, principal: Principal) -> NewEvent:
    return NewEvent(
        kind=kind,
        subject_type="root",
        subject_id=row.id,
        subject_name=row.path,
        actor=principal.name,
        data={"path": row.path, "layout": row.layout},
    )
