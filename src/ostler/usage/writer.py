"""Storing what was counted, without making any request wait."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from ostler.core.database import Database
from ostler.usage.records import RequestRecord
from ostler.usage.tables import RequestRow

log = logging.getLogger(__name__)

QUEUE_LIMIT = 20_000
BATCH = 1_000
_COLUMNS = RequestRecord.__slots__


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
        """Store what is there now."""
        while self._queue and await self._write_batch():
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
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        try:
            async with self._database.write() as session:
                await session.execute(insert(RequestRow.__table__), [_values(record) for record in batch])  # type: ignore[arg-type]
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


def _values(record: RequestRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _COLUMNS}
