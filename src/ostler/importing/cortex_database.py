"""Cortex's tables in PostgreSQL, read as they are: whatever columns its version has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ostler.core.errors import InvalidField, UpstreamError

TABLES = (
    "organizations",
    "users",
    "api_keys",
    "models",
    "recipes",
    "config_kv",
    "chat_sessions",
    "chat_messages",
)
NEEDED = ("users", "models")
"""Without these it is no database of Cortex."""

CONNECT_TIMEOUT_S = 10

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


class DatabaseUnreachable(UpstreamError):
    """The database of the other system does not answer, or does not let us in."""

    hint = "Check host, port, name and password: postgresql://USER:PASSWORD@HOST:15432/cortex"


class NotCortex(InvalidField):
    """The database is none of Cortex."""


async def read_tables(database_url: str) -> Tables:
    """Every row of Cortex's tables, in one transaction that cannot write; absent tables are empty.

    `usage_rows` holds one row with the number of rows of usage, which are not read. Raises InvalidField,
    DatabaseUnreachable, NotCortex.
    """
    engine = create_async_engine(
        _url(database_url), poolclass=NullPool, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}
    )
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            return await connection.run_sync(_read)
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseUnreachable(f"Cortex's database could not be read: {reason}") from error
    finally:
        await engine.dispose()


def _url(given: str) -> Any:
    """Cortex's own spelling of the URL, for our driver."""
    try:
        url = make_url(given)
    except ArgumentError as error:
        raise InvalidField(
            "database_url", "this is no address of a database", hint=DatabaseUnreachable.hint
        ) from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise InvalidField(
            "database_url",
            f"Cortex's database is a PostgreSQL, not {url.get_backend_name()[:50]}",
            hint=DatabaseUnreachable.hint,
        )
    return url.set(drivername="postgresql+psycopg")


def _read(connection: Connection) -> Tables:
    there = set(inspect(connection).get_table_names())
    if missing := [name for name in NEEDED if name not in there]:
        raise NotCortex("database_url", f"this is no database of Cortex: it has no table {missing[0]}")
    found: dict[str, Sequence[Row]] = dict.fromkeys(TABLES, ())
    for name in TABLES:
        if name in there:
            rows = connection.execute(text(f"SELECT * FROM {name}")).mappings()
            found[name] = sorted((dict(row) for row in rows), key=_place)
    usage = connection.scalar(text("SELECT count(*) FROM usage")) if "usage" in there else 0
    found["usage_rows"] = [{"count": usage or 0}]
    return found


def _place(row: Row) -> tuple[Any, ...]:
    """By time where the key is no number, so that the order is that of Cortex."""
    key = row.get("id")
    return (0, key) if isinstance(key, int) else (1, str(row.get("created_at") or ""), str(key))
