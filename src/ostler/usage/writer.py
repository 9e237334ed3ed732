"""Storing what was counted, without making any request wait."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.exc import SQLAlchemyError

from ostler.core.database import Database
from ostler.usage.records import RequestRecord
from ostler.usage.tables import RequestRow

log = logging.getLogger(__name__)

QUEUE_LIMIT = 20_000
BATCH = 1_000
STATEMENT_ROWS = (256, 64, 16, 4, 1)
"""How many rows one statement may have: few sizes, so that drivers keep few prepared statements."""
_COLUMNS = RequestRecord.__slots__
_values = attrgetter(*_COLUMNS)


class UsageWriter:
    """A bounded queue and the one task that empties it into the database.

    `record` never waits and never raises: when the database cannot keep up, the record is dropped,
    counted in `dropped`, and said in the log once per batch. `flush_s` is how long a record may wait
    for others to be stored with.
    """

    def __init__(self, database: Database, *, flush_s: float = 1.0, limit: int = QUEUE_LIMIT) -> None:
        self._database = database
        self._flush_s = flush_s
        self._limit = limit
        self._queue: deque[RequestRecord] = deque()
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._dropped_told = 0
        self.dropped = 0
        self.written = 0

    def record(self, record: RequestRecord) -> None:
        """Take one record."""
        if len(self._queue) >= self._limit:
            self.dropped += 1
            return
        if not self._queue:
            self._arrived.set()
        self._queue.append(record)

    @property
    def waiting(self) -> int:
        """How many records are not stored yet."""
        return len(self._queue)

    async def start(self) -> None:
        """Begin to store."""
        self._task = asyncio.create_task(self._run(), name="usage writer")

    async def close(self) -> None:
        """Store what is left, then end."""
        if self._task is None:
            return
        self._closing.set()
        self._arrived.set()
        try:
            await asyncio.wait_for(self._task, timeout=10.0)
        except TimeoutError:
            log.warning("%d accounted requests could not be stored in time", len(self._queue))
        self._task = None

    async def flush(self) -> None:
        """Store what is there now; what is being stored already is waited for."""
        while await self._write_batch() and self._queue:
            pass

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._closing.is_set():
                await self._pause(self._flush_s)
            self._arrived.clear()
            failed = False
            while self._queue and not failed:
                failed = not await self._write_batch()
            if self._closing.is_set():
                return
            if failed:
                await self._pause(self._flush_s)
                self._arrived.set()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), timeout=seconds)
        except TimeoutError:
            return

    async def _write_batch(self) -> bool:
        """Store the oldest records; False when the database refused and they stay in the queue."""
        async with self._writing:
            return not self._queue or await self._write_oldest()

    async def _write_oldest(self) -> bool:
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        try:
            async with self._database.write() as session:
                connection = await session.connection()
                rows = _rows(batch, connection.dialect)
                for sql, values in _statements(rows, connection.dialect):
                    await connection.exec_driver_sql(sql, values)
        except (SQLAlchemyError, OSError) as error:
            log.warning("%d accounted requests are not stored yet: %s", len(batch), error)
            self._queue.extendleft(reversed(batch))
            return False
        except BaseException:
            self._queue.extendleft(reversed(batch))
            raise
        self.written += len(batch)
        if self.dropped > self._dropped_told:
            log.warning(
                "%d requests were not accounted: the queue was full", self.dropped - self._dropped_told
            )
            self._dropped_told = self.dropped
        return True


def _rows(batch: list[RequestRecord], dialect: Dialect) -> list[tuple[Any, ...]]:
    """The values of each record, the time as the driver wants it."""
    store_time = RequestRow.__table__.c.at.type.dialect_impl(dialect).bind_processor(dialect)
    if store_time is None:
        return [_values(record) for record in batch]
    return [(store_time(record.at), *_values(record)[1:]) for record in batch]


def _statements(rows: list[tuple[Any, ...]], dialect: Dialect) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Statements of many rows each, in the driver's own words.

    They cost a quarter of what the general way of inserting costs, and this is paid for every request.
    """
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    row = "(" + ", ".join([mark] * len(_COLUMNS)) + ")"
    into = f"INSERT INTO {RequestRow.__tablename__} ({', '.join(_COLUMNS)}) VALUES "
    begin = 0
    for size in STATEMENT_ROWS:
        while len(rows) - begin >= size:
            values = tuple(chain.from_iterable(rows[begin : begin + size]))
            yield into + ", ".join([row] * size), values
            begin += size
