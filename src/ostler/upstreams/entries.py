"""Models that engines elsewhere serve, entered by an administrator: a name, a URL, and what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit, row_to_change
from ostler.core.errors import Conflict, InvalidField, NotFound
from ostler.core.events import EventLog, NewEvent
from ostler.core.principals import Principal, Role
from ostler.engines.registry import Engines
from ostler.models.names import check_name
from ostler.models.records import Model
from ostler.upstreams.tables import ExternalRow

TASKS = ("generate", "embed")


class ExternalNotFound(NotFound):
    """No model of an upstream was entered under this name."""

    hint = "See them with: GET /ostler/v1/upstreams"


class ExternalNameTaken(Conflict):
    """A model has this name already."""

    hint = "Choose another name."


@dataclass(frozen=True, slots=True)
class External:
    """A model elsewhere. `url` is where its engine listens, without `/v1`; `task` generate or embed."""

    name: str
    url: str
    engine: str
    task: str
    created_at: datetime


FindModel = Callable[[str], Model | None]
"""The recipe with this name or alias."""


class Externals:
    """Every entered model of an upstream, in memory too. Changes need the role admin."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, engines: Engines, find: FindModel
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._engines = engines
        self._find = find
        self._known: dict[str, External] = {}

    async def start(self) -> None:
        """Read them into memory."""
        async with self._database.read() as session:
            rows = (await session.scalars(select(ExternalRow))).all()
        self._known = {row.name: _external(row) for row in rows}

    def all(self) -> list[External]:
        """Every one, by name."""
        return [self._known[name] for name in sorted(self._known)]

    async def add(
        self, name: str, url: str, engine: str, task: str, principal: Principal, *, replace: bool = False
    ) -> External:
        """Enter a model; with `replace` one that is there already leads elsewhere from now on.

        Raises InvalidField, UnknownEngine, ExternalNameTaken, NotAllowed.
        """
        principal.require(Role.ADMIN, "enter upstreams")
        url = self.check(name, url, engine, task)
        row = ExternalRow(name=name, url=url, engine=engine, task=task, created_at=self._clock.now())
        entered = _external(row)
        try:
            async with self._database.write() as session:
                if replace:
                    row = await session.merge(row)
                else:
                    session.add(row)
                await session.flush()
                await self._events.add(
                    session,
                    NewEvent("upstream.added", "upstream", name, name, principal.name, data={"url": row.url}),
                )
                after_commit(session, lambda: self._known.update({name: entered}))
        except IntegrityError as error:
            raise ExternalNameTaken(f"there is already a model named {name!r}", model=name) from error
        return entered

    def check(self, name: str, url: str, engine: str, task: str) -> str:
        """The URL as it is kept, of a model that may be entered. Raises as `add` does."""
        check_name(name)
        self._engines.get(engine)
        if task not in TASKS:
            raise InvalidField("task", f"there is no task {task!r}", hint=f"One of: {', '.join(TASKS)}")
        if self._find(name) is not None:
            raise ExternalNameTaken(f"there is already a model named {name!r}", model=name)
        return check_url(url)

    async def remove(self, name: str, principal: Principal) -> External:
        """Take an entry out; the engine there is not touched. Raises ExternalNotFound, NotAllowed."""
        principal.require(Role.ADMIN, "take out upstreams")
        async with self._database.write() as session:
            row = await row_to_change(session, ExternalRow, name)
            if row is None:
                raise ExternalNotFound(f"there is no entered model {name!r}", model=name)
            gone = _external(row)
            await session.delete(row)
            await self._events.add(
                session, NewEvent("upstream.removed", "upstream", name, name, principal.name)
            )
            after_commit(session, lambda: self._forget(name))
        return gone

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)


def check_url(url: str) -> str:
    """The base URL of an upstream, without a slash at its end. Raises InvalidField."""
    text = url.strip().rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _no_url(url, str(error)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise _no_url(url, "it needs http:// or https://, and a host")
    if parts.username or parts.password or parts.query or parts.fragment or not text.isprintable():
        raise _no_url(url, "user, query and fragment have no place here")
    if len(text) > 2_000 or " " in text:
        raise _no_url(url, "it is too long, or has spaces")
    return text


def _no_url(url: str, why: str) -> InvalidField:
    return InvalidField(
        "url", f"{url[:100]!r} is no address of an upstream: {why}", hint="Such as http://gpu-2:8000"
    )


def _external(row: ExternalRow) -> External:
    return External(row.name, row.url, row.engine, row.task, row.created_at)
