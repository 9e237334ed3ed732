"""Events: things that happened, kept in the history and streamed live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit
from ostler.core.queries import page_of
from ostler.core.tables import EventRow

log = logging.getLogger(__name__)

SUBSCRIBER_QUEUE = 1_000
REPLAY_PAGE = 500


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be recorded.

    `kind` is dotted, noun first ("instance.running", "download.failed"); `subject_*` say what it
    happened to; `actor` is a principal's name; `cause` is one sentence; `data` are facts and numbers.
    """

    kind: str
    subject_type: str
    subject_id: int | str
    subject_name: str
    actor: str
    cause: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event. `id` grows by time; 0 marks a live-only event that is not kept."""

    id: int
    at: datetime
    kind: str
    subject_type: str
    subject_id: str
    subject_name: str
    actor: str
    cause: str
    data: Mapping[str, Any]


class EventLog:
    """Records events in the database, writes a log line of each, and hands them to whoever listens."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._subscribers: set[asyncio.Queue[Event | None]] = set()

    async def add(self, session: AsyncSession, new: NewEvent) -> Event:
        """Record within the caller's transaction; listeners hear of it once that is committed."""
        row = EventRow(**self._values(new))
        session.add(row)
        await session.flush()
        recorded = _event(row)
        after_commit(session, lambda: self._tell(recorded))
        return recorded

    async def record(self, new: NewEvent) -> Event:
        """Record in a transaction of its own."""
        async with self._database.write() as session:
            return await self.add(session, new)

    def announce(self, new: NewEvent) -> None:
        """Tell the listeners only (progress, for example): it is not kept and has id 0."""
        self._hand_out(Event(id=0, **self._values(new)))

    async def listen(self, after_id: int | None = None) -> AsyncGenerator[Event]:
        """Live events, for ever; with `after_id` first all kept ones after it, none twice.

        A listener that falls more than SUBSCRIBER_QUEUE events behind is ended, not served a gap:
        it asks again with the last id that it saw.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(SUBSCRIBER_QUEUE)
        self._subscribers.add(queue)
        last_id = after_id or 0
        try:
            if after_id is not None:
                async with aclosing(self._replay(after_id)) as kept:
                    async for happened in kept:
                        last_id = happened.id
                        yield happened
            while (next_event := await queue.get()) is not None:
                if next_event.id and next_event.id <= last_id:
                    continue
                last_id = next_event.id or last_id
                yield next_event
        finally:
            self._subscribers.discard(queue)

    async def find(
        self,
        *,
        kind: str | None = None,
        subject_type: str | None = None,
        subject_id: str | None = None,
        subject_name: str | None = None,
        actor: str | None = None,
        hide_subject_types: Collection[str] = (),
        limit: int = 50,
        offset: int = 0,
        newest_first: bool = True,
    ) -> tuple[list[Event], int]:
        """The kept events that match, one page of them, and how many there are in all.

        `kind` matches a whole kind or, with a trailing dot ("instance."), all that begin so.
        `hide_subject_types` leaves out what happened to subjects of these types.
        """
        query = select(EventRow)
        if kind:
            matches = EventRow.kind.startswith(kind) if kind.endswith(".") else EventRow.kind == kind
            query = query.where(matches)
        for column, value in (
            (EventRow.subject_type, subject_type),
            (EventRow.subject_id, subject_id),
            (EventRow.subject_name, subject_name),
            (EventRow.actor, actor),
        ):
            if value is not None:
                query = query.where(column == value)
        if hide_subject_types:
            query = query.where(EventRow.subject_type.not_in(hide_subject_types))
        order = EventRow.id.desc() if newest_first else EventRow.id.asc()
        async with self._database.read() as session:
            page = await page_of(session, query, order, limit=limit, offset=offset)
            return [_event(row) for row in page.items], page.total

    async def forget(self, before: datetime, *, batch: int = 1_000) -> int:
        """Delete kept events older than `before`, in small transactions; how many they were."""
        forgotten = 0
        while True:
            async with self._database.write() as session:
                old = select(EventRow.id).where(EventRow.at < before).order_by(EventRow.id).limit(batch)
                ids = (await session.scalars(old)).all()
                await session.execute(delete(EventRow).where(EventRow.id.in_(ids)))
            forgotten += len(ids)
            if len(ids) < batch:
                return forgotten

    def close(self) -> None:
        """End every listener, so that open event streams finish at shutdown."""
        for queue in list(self._subscribers):
            _end(queue)

    def _values(self, new: NewEvent) -> dict[str, Any]:
        """What is kept of an event that happens now."""
        given = {name: getattr(new, name) for name in NewEvent.__slots__}
        return {**given, "at": self._clock.now(), "subject_id": str(new.subject_id), "data": dict(new.data)}

    async def _replay(self, after_id: int) -> AsyncGenerator[Event]:
        while True:
            async with self._database.read() as session:
                query = select(EventRow).where(EventRow.id > after_id).order_by(EventRow.id)
                rows = (await session.scalars(query.limit(REPLAY_PAGE))).all()
            for row in rows:
                after_id = row.id
                yield _event(row)
            if len(rows) < REPLAY_PAGE:
                return

    def _tell(self, happened: Event) -> None:
        facts = {"event": happened.kind, "subject": happened.subject_name, "actor": happened.actor}
        cause = f": {happened.cause}" if happened.cause else ""
        log.info("%s %s%s (%s)", happened.kind, happened.subject_name, cause, happened.actor, extra=facts)
        self._hand_out(happened)

    def _hand_out(self, happened: Event) -> None:
        for queue in list(self._subscribers):
            try:
                queue.put_nowait(happened)
            except asyncio.QueueFull:
                self._subscribers.discard(queue)
                _end(queue)


def _end(queue: asyncio.Queue[Event | None]) -> None:
    while queue.full():
        queue.get_nowait()
    queue.put_nowait(None)


def _event(row: EventRow) -> Event:
    return Event(**{name: getattr(row, name) for name in Event.__slots__})
