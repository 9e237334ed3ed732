"""Bringing a database to the current schema, safely: the migrations run in one transaction each."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from ostler.core.database import Database
from ostler.core.errors import Conflict

MIGRATIONS = Path(__file__).parent / "migrations"


class DatabaseIsNewer(Conflict):
    """The database was written by a newer Ostler."""

    hint = "Start the newer version again, or restore a backup of the database made before the upgrade."


async def upgrade(database: Database) -> None:
    """Apply every migration that is missing. Raises DatabaseIsNewer when it knows more than we do."""
    async with database.connect() as connection:
        await connection.execution_options(ostler_write=True)
        async with connection.begin():
            await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise DatabaseIsNewer(
            f"the database is at schema {current}, which this version does not know", schema=current
        )
    command.upgrade(config, "head")
