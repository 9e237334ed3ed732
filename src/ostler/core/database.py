"""The database: one metadata for all rooms' tables, sessions, and what SQLite needs to be safe.

Rooms declare their tables on `Base` in their own `tables.py`; migrations live beside this file.
SQLite runs in WAL mode with foreign keys and a busy timeout; every write transaction begins as
IMMEDIATE, so two writers wait for each other instead of failing halfway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import JSON, DateTime, MetaData, event, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

BUSY_TIMEOUT_MS = 15_000
_AFTER_COMMIT = "ostler_after_commit"

JsonDocument = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""The column type of an open JSON document."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both databases (SQLite itself forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime may not be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The base of every table row class."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JsonDocument, list[str]: JsonDocument}


RowT = TypeVar("RowT", bound=Base)


async def row_to_change(session: AsyncSession, row_class: type[RowT], key: object) -> RowT | None:
    """The row with this key, or None, held until the transaction ends.

    A second writer waits and then sees what the first left (PostgreSQL; SQLite has one writer at a
    time). Without it, two deletions at once end in an error of the database.
    """
    return await session.get(row_class, key, with_for_update=True, populate_existing=True)


async def named_row(
    session: AsyncSession, row_class: type[RowT], which: int | str, *, to_change: bool = False
) -> RowT | None:
    """The row with this `id`, or this `name`, or None; `to_change` holds it until the transaction ends."""
    columns: Any = row_class
    column = columns.id if isinstance(which, int) else columns.name
    query = select(row_class).where(column == which)
    found: RowT | None = await session.scalar(query.with_for_update() if to_change else query)
    return found


def after_commit(session: AsyncSession, action: Callable[[], None]) -> None:
    """Run `action` once this session's transaction is committed, and never if it is rolled back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(action)


class Database:
    """Sessions over one URL: `sqlite+aiosqlite:///...` or `postgresql+psycopg://...`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        connect_args: dict[str, Any] = {"timeout": BUSY_TIMEOUT_MS / 1000} if self.is_sqlite else {}
        self.engine: AsyncEngine = create_async_engine(
            url, connect_args=connect_args, pool_pre_ping=not self.is_sqlite
        )
        self._write_lock = asyncio.Lock()
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for reading. Nothing is committed."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction: committed at the end, rolled back on an exception.

        Keep it short and never await the outside world inside.
        """
        if self.is_sqlite:
            async with self._write_lock, self._writing() as session:
                yield session
        else:
            async with self._writing() as session:
                yield session

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncSession]:
        async with self.engine.connect() as connection:
            await connection.execution_options(ostler_write=True)
            async with AsyncSession(bind=connection, expire_on_commit=False) as session:
                async with session.begin():
                    yield session
                actions = session.info.pop(_AFTER_COMMIT, [])
        # Last of all, so that who is told and who wrote see the same at the same moment.
        for action in actions:
            action()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A bare connection, for checks and migrations."""
        async with self.engine.connect() as connection:
            yield connection

    async def check(self) -> list[str]:
        """What is wrong with the database, as sentences; an empty list when all is well."""
        async with self.engine.connect() as connection:
            if not self.is_sqlite:
                await connection.execute(text("SELECT 1"))
                return []
            integrity = (await connection.execute(text("PRAGMA integrity_check"))).scalars().all()
            orphans = (await connection.execute(text("PRAGMA foreign_key_check"))).all()
        problems = [str(line) for line in integrity if line != "ok"]
        return problems + [f"table {row[0]} has a row without its parent in {row[2]}" for row in orphans]

    async def ping(self) -> None:
        """Raise whatever the driver raises if the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def _prepare_sqlite(dbapi_connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("ostler_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
