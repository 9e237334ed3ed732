"""A database with the current schema, to begin with: migrating anew for each test takes long."""

from __future__ import annotations

import asyncio
import shutil
import threading
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from ostler.core.database import Database
from ostler.core.migrate import upgrade


@cache
def migrated_file() -> Path:
    """An SQLite file with the current schema and nothing in it, to copy."""
    file = Path(mkdtemp(prefix="ostler-schema-")) / "ostler.db"

    async def migrate() -> None:
        database = Database(f"sqlite+aiosqlite:///{file}")
        await upgrade(database)
        await database.close()

    thread = threading.Thread(target=asyncio.run, args=(migrate(),))  # a loop may run in this one
    thread.start()
    thread.join()
    return file


def place_database(data_dir: Path) -> None:
    """Put it into a data folder that has none."""
    if not (data_dir / "ostler.db").exists():
        shutil.copy(migrated_file(), data_dir / "ostler.db")
