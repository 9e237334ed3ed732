"""The database keeps what was committed, lets writers wait for each other, and knows its schema."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from ostler.core.database import Database
from ostler.core.migrate import DatabaseIsNewer, upgrade
from ostler.core.tables import EventRow, SettingRow
from tests.core.schema import make_schema, schema_differences


def setting(name: str) -> SettingRow:
    return SettingRow(name=name, value={"a": [1]}, changed_at=datetime.now(UTC), changed_by="somebody")


def event(name: str) -> EventRow:
    return EventRow(
        at=datetime.now(UTC), kind="a", subject_type="b", subject_id="1", subject_name=name, actor="somebody",
        cause="", data={}
    )  # fmt: skip


async def test_the_migrations_make_exactly_the_tables_of_the_rooms(database: Database) -> None:
    assert await schema_differences(database) == []


async def test_upgrading_twice_changes_nothing(database: Database) -> None:
    async with database.write() as session:
        session.add(setting("kept"))
    await upgrade(database)
    async with database.read() as session:
        row = await session.get_one(SettingRow, "kept")
        assert row.value == {"a": [1]} and row.changed_at.tzinfo is UTC


async def test_a_database_of_the_first_schema_keeps_its_rows_when_it_is_upgraded(database_url: str) -> None:
    database = Database(database_url)
    await make_schema(database, "0001")
    async with database.write() as session:
        session.add(setting("kept"))
        session.add(event("kept"))
    await upgrade(database)
    assert await schema_differences(database) == [] and await database.check() == []
    async with database.read() as session:
        assert (await session.get_one(SettingRow, "kept")).value == {"a": [1]}
        assert (await session.scalars(select(EventRow.subject_name))).all() == ["kept"]
    await database.close()


async def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    async with database.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseIsNewer, match="9999"):
        await upgrade(database)


async def test_two_servers_writing_at_once_wait_for_each_other(database: Database, tmp_path: Path) -> None:
    other = Database(database.url)

    async def write(through: Database, number: int) -> None:
        async with through.write() as session:
            session.add(setting(f"setting-{number}"))
            await session.flush()
            await asyncio.sleep(0)

    await asyncio.gather(*(write((database, other)[n % 2], n) for n in range(40)))
    async with database.read() as session:
        assert await session.scalar(text("SELECT count(*) FROM settings")) == 40
    await other.close()


@pytest.mark.sqlite_only
async def test_the_integrity_check_finds_an_orphan_and_is_silent_on_a_sound_database(
    database: Database,
) -> None:
    assert await database.check() == []
    async with database.connect() as connection:
        await connection.exec_driver_sql("COMMIT")
        await connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        await connection.exec_driver_sql("INSERT INTO model_aliases VALUES ('nobody', 77)")
    assert await database.check() == ["table model_aliases has a row without its parent in models"]
