"""How far a database is from the tables that the rooms declare."""

import importlib
import importlib.util
import pkgutil

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

import ostler
from ostler.core.database import Base, Database
from ostler.core.migrate import MIGRATIONS


async def schema_differences(database: Database) -> list[object]:
    """What a migration would still have to change; an empty list when the schema is current."""
    for room in pkgutil.iter_modules(ostler.__path__, "ostler."):
        if room.ispkg and importlib.util.find_spec(f"{room.name}.tables"):
            importlib.import_module(f"{room.name}.tables")

    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    async with database.connect() as connection:
        return await connection.run_sync(compare)


async def make_schema(database: Database, revision: str) -> None:
    """Make the tables of an older version in an empty database."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with database.connect() as connection:
        await connection.execution_options(ostler_write=True)
        async with connection.begin():
            await connection.run_sync(run)
