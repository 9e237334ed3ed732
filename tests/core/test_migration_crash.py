"""A server that is killed while it migrates leaves a database that the next one can bring up to date."""

import asyncio
import sys

import pytest

from ostler.core.database import Database
from ostler.core.migrate import upgrade
from tests.core.schema import schema_differences

KILLED_AT_STATEMENT = """
import asyncio, os, signal, sys
from sqlalchemy import event
from ostler.core.database import Database
from ostler.core.migrate import upgrade

async def main(url, fatal):
    database = Database(url)
    seen = 0

    @event.listens_for(database.engine.sync_engine, "after_cursor_execute")
    def count(*_):
        nonlocal seen
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    await upgrade(database)
    await database.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("statement", [2, 12, 30])
async def test_a_migration_killed_halfway_is_done_again_whole(database_url: str, statement: int) -> None:
    url = database_url
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_AT_STATEMENT, url, str(statement)
    )
    assert await killed.wait() == -9

    database = Database(url)
    await upgrade(database)

    assert await schema_differences(database) == []
    assert await database.check() == []
    await database.close()
