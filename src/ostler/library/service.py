"""The library's service: roots, one listing, inspection, finding and deleting."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.paging import Page
from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.library.deletion import DeletePlan
from ostler.library.filesets import FileSet
from ostler.library.roots import Root


class Library:
    """Model files on disk, over all roots of this node."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, settings: Settings, node: str
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._settings = settings
        self._node = node

    async def start(self) -> None:
        raise NotImplementedError

    async def roots(self) -> builtins.list[Root]:
        raise NotImplementedError

    async def add_root(self, path: Path, layout: str, principal: Principal) -> Root:
        raise NotImplementedError

    async def remove_root(self, root_id: int, principal: Principal) -> None:
        raise NotImplementedError

    async def list(
        self,
        *,
        search: str | None = None,
        layout: str | None = None,
        repo: str | None = None,
        format: str | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[FileSet]:
        raise NotImplementedError

    async def get(self, file_set_id: str) -> FileSet:
        raise NotImplementedError

    async def inspect(self, path: Path) -> FileSet:
        raise NotImplementedError

    async def find(
        self,
        *,
        path: Path | None = None,
        repo: str | None = None,
        file: str | None = None,
        tag: str | None = None,
        revision: str | None = None,
    ) -> FileSet | None:
        raise NotImplementedError

    async def plan_delete(self, file_set_id: str, in_use: Callable[[Path], str | None]) -> DeletePlan:
        raise NotImplementedError

    async def delete(self, plan: DeletePlan, principal: Principal) -> DeletePlan:
        raise NotImplementedError

    async def refresh(self) -> None:
        raise NotImplementedError
