"""A database of any earlier schema is upgraded with all its rows, and its models go on as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.types import JSON, Boolean, DateTime, Float, Integer

from ostler.api.dialects.cortex.records import model_fields
from ostler.core.database import Database
from ostler.core.migrate import MIGRATIONS, upgrade
from ostler.models import store
from ostler.models.records import FITS_NOT
from tests.core.schema import make_schema, schema_differences
from tests.models.test_runtime_options import OLD_ROW


def _revisions() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return sorted(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())


REVISIONS = _revisions()
MODEL = {
    "source": '{"kind": "file", "path": "/models/a.gguf"}',
    **dict.fromkeys(("created_at", "updated_at"), "2026-01-02 03:04:05.000000"),
}


def _value(kind: Any) -> Any:
    if isinstance(kind, Boolean | Integer | Float):
        return 1
    if isinstance(kind, DateTime):
        return "2026-01-02 03:04:05.000000"
    return "{}" if isinstance(kind, JSON) else "word"


def _one_row_each(connection: Connection) -> dict[str, int]:
    """A row in every table; how many each has then."""
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        if table.name == "alembic_version":
            continue
        row = {column.name: _value(column.type) for column in table.columns if not column.nullable}
        row |= {**OLD_ROW, **MODEL} if table.name == "models" else {}
        names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO {table.name} ({names}) VALUES ({places})"), row)
    return _counts(connection)


def _counts(connection: Connection) -> dict[str, int]:
    metadata = MetaData()
    metadata.reflect(connection)
    return {
        name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
        for name in metadata.tables
        if name != "alembic_version"
    }


@pytest.mark.sqlite_only
@pytest.mark.parametrize("revision", REVISIONS[:-1])
async def test_no_row_is_lost_and_every_model_is_read(tmp_path: Path, revision: str) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'old.db'}")
    await make_schema(database, revision)
    async with database.write() as session:
        before = await (await session.connection()).run_sync(_one_row_each)
    await upgrade(database)
    assert await schema_differences(database) == []
    async with database.read() as session:
        after = await (await session.connection()).run_sync(_counts)
        (model,) = await store.load(session)
    assert {name: after[name] for name in before} == before
    assert model.ignored == ({FITS_NOT} if revision >= "0003" else frozenset())
    assert model.name == "old" and not model.runtime_options
    assert model.policy.request_timeout_s is None and model.policy.stream_timeout_s is None
    assert model_fields(model, tmp_path)["served_model_name"] == "old"
    await database.close()


def test_there_is_one_line_of_schemas() -> None:
    assert [f"{number:04}" for number in range(1, len(REVISIONS) + 1)] == REVISIONS
