"""A llamactl's database and configuration, as it writes them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from tests.api.conftest import api, make_api  # noqa: F401

SCHEMA = """
CREATE TABLE instances (id INTEGER PRIMARY KEY, name TEXT UNIQUE, status TEXT, created_at INTEGER,
  updated_at INTEGER, options_json TEXT, owner_user_id TEXT);
CREATE TABLE api_keys (id INTEGER PRIMARY KEY, key_hash TEXT, name TEXT, user_id TEXT, permission_mode TEXT,
  expires_at INTEGER, created_at INTEGER, updated_at INTEGER, last_used_at INTEGER);
CREATE TABLE key_permissions (key_id INTEGER, instance_id INTEGER, PRIMARY KEY (key_id, instance_id));
CREATE TABLE schema_migrations (version INTEGER, dirty INTEGER);
"""
HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@dataclass
class OldLlamactl:
    """Its folder; `instance` and `key` add rows."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "llamactl.db"

    @property
    def config(self) -> Path:
        return self.folder / "llamactl.yaml"

    def _add(self, table: str, values: dict[str, Any]) -> int:
        marks = ", ".join("?" * len(values))
        with closing(sqlite3.connect(self.database)) as connection, connection:
            insert = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"
            return connection.execute(insert, tuple(values.values())).lastrowid or 0

    def instance(self, name: str, options: dict[str, Any] | str, status: str = "stopped") -> int:
        text = options if isinstance(options, str) else json.dumps(options)
        return self._add("instances", {"name": name, "status": status, "options_json": text})

    def key(
        self, name: str, token: str, instances: tuple[int, ...] | None = None, expires_at: int = 0
    ) -> int:
        mode = "allow_all" if instances is None else "per_instance"
        values = {"name": name, "key_hash": HASHER.hash(token), "permission_mode": mode}
        number = self._add(
            "api_keys", {**values, "expires_at": expires_at or None, "created_at": 1_700_000_000}
        )
        for instance in instances or ():
            self._add("key_permissions", {"key_id": number, "instance_id": instance})
        return number


@pytest.fixture
def llamactl(tmp_path: Path) -> OldLlamactl:
    folder = tmp_path / "old"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "llamactl.db")) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
    return OldLlamactl(folder)
