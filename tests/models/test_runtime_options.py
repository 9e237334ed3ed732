"""What a recipe says of its container: kept, checked, and for administrators where it reaches far."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from ostler.core.database import Database
from ostler.core.errors import InvalidField, NotAllowed
from ostler.core.migrate import MIGRATIONS, upgrade
from ostler.core.principals import Principal, Role
from ostler.models.records import NewModel
from ostler.models.service import Models

DEMO = NewModel({"path": "demo.gguf"}, name="demo", runtime="docker")
OLD_ROW = {
    **dict.fromkeys(("name", "description", "node", "task"), "old"),
    **dict.fromkeys(("source", "options", "env", "request_defaults", "policy", "dialect_data"), "{}"),
    **dict.fromkeys(("read_only", "archived", "revision"), 0),
    **dict.fromkeys(("created_at", "updated_at"), "2026-01-01"),
    "origin": "native",
    "engine": "llamacpp",
    "runtime": "process",
    "desired_state": "stopped",
    "extra_args": "[]",
}
POWER_USER = Principal("a power user", Role.POWER_USER)


async def test_it_is_kept_as_it_was_written_and_merged_key_by_key(models: Models, admin: Principal) -> None:
    wishes = {"image": "llama:1", "memory": "8GiB", "cpus": 2}
    await models.create(replace(DEMO, runtime_options=wishes), admin)
    await models.start()
    assert models.get("demo").runtime_options == wishes
    changed = await models.update("demo", {"runtime_options": {"memory": None, "cpus": 4}}, admin)
    assert changed.runtime_options == {"image": "llama:1", "cpus": 4}
    assert (await models.copy("demo", "other", admin)).runtime_options == changed.runtime_options


async def test_a_wish_that_cannot_be_is_refused_when_it_is_stored(models: Models, admin: Principal) -> None:
    with pytest.raises(InvalidField) as caught:
        await models.create(replace(DEMO, runtime_options={"memry": "8GiB"}), admin)
    assert caught.value.facts["field"] == "runtime_options.memry"
    assert models.find("demo") is None


@pytest.mark.parametrize(
    "wish",
    [
        {"image": "mine:1"},
        {"mounts": ["/etc:/etc"]},
        {"network": "host"},
        {"ipc": "host"},
        {"user": "root"},
        {"read_only_root": False},
        {"hf_cache": "rw"},
    ],
)
async def test_what_reaches_beyond_the_model_is_for_administrators(
    models: Models, admin: Principal, wish: dict[str, Any]
) -> None:
    with pytest.raises(NotAllowed):
        await models.create(replace(DEMO, runtime_options=wish), POWER_USER)
    await models.create(replace(DEMO, runtime_options=wish), admin)
    kept = await models.update("demo", {"runtime_options": {"memory": "8GiB"}}, POWER_USER)
    assert kept.runtime_options == {**wish, "memory": "8GiB"}


async def test_limits_are_for_everybody_who_makes_models(models: Models) -> None:
    wishes = {"memory": "8GiB", "cpus": 2, "pids": 100, "shm_size": "1GiB"}
    made = await models.create(replace(DEMO, runtime_options=wishes), POWER_USER)
    assert made.runtime_options == wishes


@pytest.mark.sqlite_only
async def test_a_model_of_an_earlier_database_has_no_wishes(tmp_path: Any) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'old.db'}")

    def to_first(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    async with database.write() as session:
        await (await session.connection()).run_sync(to_first)
        values = ", ".join(f"{value!r}" for value in OLD_ROW.values())
        await session.execute(text(f"INSERT INTO models ({', '.join(OLD_ROW)}) VALUES ({values})"))
    await upgrade(database)
    async with database.read() as session:
        assert (await session.execute(text("SELECT name, runtime_options FROM models"))).all() == [
            ("old", "{}")
        ]
    await database.close()
