"""What llamactl keeps on a disk: its configuration with variables, and its SQLite database."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ostler.core.errors import InvalidField

MOST_CONFIG_BYTES = 1024 * 1024
DATABASE = "llamactl.db"
NEEDED = "instances"
TABLES: Mapping[str, frozenset[str]] = {
    NEEDED: frozenset({"id", "name", "status", "options_json"}),
    "api_keys": frozenset({"id", "key_hash", "name", "permission_mode"}),
    "key_permissions": frozenset({"key_id", "instance_id"}),
}
"""The tables that are read, with the columns that every version has."""
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*")

Row = Mapping[str, Any]

ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "LLAMACTL_HOST": ("server", "host"),
    "LLAMACTL_PORT": ("server", "port"),
    "LLAMACTL_ALLOWED_ORIGINS": ("server", "allowed_origins"),
    "LLAMACTL_DATA_DIRECTORY": ("data_dir",),
    "LLAMACTL_LOCAL_NODE": ("local_node",),
    "LLAMACTL_MAX_INSTANCES": ("instances", "max_instances"),
    "LLAMACTL_MAX_RUNNING_INSTANCES": ("instances", "max_running_instances"),
    "LLAMACTL_ENABLE_LRU_EVICTION": ("instances", "enable_lru_eviction"),
    "LLAMACTL_DEFAULT_IDLE_TIMEOUT": ("instances", "default_idle_timeout"),
    "LLAMACTL_DEFAULT_AUTO_RESTART": ("instances", "default_auto_restart"),
    "LLAMACTL_DEFAULT_MAX_RESTARTS": ("instances", "default_max_restarts"),
    "LLAMACTL_DEFAULT_RESTART_DELAY": ("instances", "default_restart_delay"),
    "LLAMACTL_ON_DEMAND_START_TIMEOUT": ("instances", "on_demand_start_timeout"),
    "LLAMACTL_DATABASE_PATH": ("database", "path"),
    "LLAMACTL_MANAGEMENT_KEYS": ("auth", "management_keys"),
    "LLAMACTL_LLAMACPP_COMMAND": ("backends", "llama-cpp", "command"),
    "LLAMACTL_LLAMACPP_ARGS": ("backends", "llama-cpp", "args"),
    "LLAMACTL_LLAMACPP_ENV": ("backends", "llama-cpp", "environment"),
    "LLAMACTL_LLAMACPP_DOCKER_ENABLED": ("backends", "llama-cpp", "docker", "enabled"),
    "LLAMACTL_LLAMACPP_CACHE_DIR": ("backends", "llama-cpp", "cache_dir"),
    "LLAMACTL_VLLM_COMMAND": ("backends", "vllm", "command"),
    "LLAMACTL_VLLM_ARGS": ("backends", "vllm", "args"),
    "LLAMACTL_VLLM_ENV": ("backends", "vllm", "environment"),
    "LLAMACTL_VLLM_DOCKER_ENABLED": ("backends", "vllm", "docker", "enabled"),
}
"""Where llamactl's variables stand in its configuration."""


class NotLlamactl(InvalidField):
    """The file is none of llamactl's, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was read. `config` has only what is set, by llamactl's own names; rows are by column."""

    config: Mapping[str, Any]
    tables: Mapping[str, Sequence[Row]]

    def get(self, *path: str) -> Any:
        """A value of the configuration; None where it is not set."""
        value: Any = self.config
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


async def read_llamactl(config: Path | None, database: Path | None, environ: Mapping[str, str]) -> Found:
    """Read both. Without `database` it is where the configuration says. Raises NotLlamactl."""
    return await asyncio.to_thread(_read, config, database, environ)


def _read(config: Path | None, database: Path | None, environ: Mapping[str, str]) -> Found:
    settings = _read_config(config, environ) if config is not None else {}
    for name, place in ENVIRONMENT.items():
        if (text := environ.get(name)) is not None:
            _put(settings, place, text)
    found = Found(settings, {})
    return Found(settings, _read_database(database or _database_of(found, environ)))


def _read_config(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    text = _text_of(path)
    beside = path.parent / ".env"
    variables = {**(_assignments(_text_of(beside)) if beside.is_file() else {}), **environ}
    try:
        read = yaml.safe_load(expanded(text, variables))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotLlamactl("config", f"{path} is no YAML: {first}") from error
    if read is not None and not isinstance(read, dict):
        raise NotLlamactl("config", f"{path} is no configuration of llamactl")
    settings: dict[str, Any] = read or {}
    backends = settings.get("backends")
    if isinstance(backends, dict) and "llama_cpp" in backends:  # as its documentation writes it
        settings["backends"] = {"llama-cpp": backends["llama_cpp"], **backends}
    return settings


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_CONFIG_BYTES + 1)
        if len(data) > MOST_CONFIG_BYTES:
            raise NotLlamactl("config", f"{path} is larger than a configuration can be")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise NotLlamactl("config", f"{path} cannot be read: {error}") from error


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """`${NAME}` and `${NAME:-default}` replaced; one that is not set and has no default stays."""

    def value(found: re.Match[str]) -> str:
        default = found[2] if found[2] is not None else found[0]
        return environ.get(found[1], default)

    return _VARIABLE.sub(value, text)


def _assignments(text: str) -> dict[str, str]:
    """The variables of a `.env` file."""
    found = {}
    for line in text.splitlines():
        if not line.lstrip().startswith("#") and (match := _ASSIGNMENT.fullmatch(line)):
            value = match[2]
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match[1]] = value[1:-1] if is_quoted else value
    return found


def _put(settings: dict[str, Any], place: tuple[str, ...], text: str) -> None:
    *parents, last = place
    for name in parents:
        inner = settings.get(name)
        inner = settings[name] = dict(inner) if isinstance(inner, Mapping) else {}
        settings = inner
    settings[last] = text


def _database_of(found: Found, environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME") or "/nonexistent")
    share = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    path = found.get("database", "path")
    folder = found.get("data_dir")
    return Path(path) if path else Path(folder or share / "llamactl") / DATABASE


def _read_database(path: Path) -> dict[str, Sequence[Row]]:
    """Every row of its tables, from a copy: nothing is written beside the original, not even a lock."""
    if not path.is_file():
        raise NotLlamactl("database", f"there is no database at {path}", hint="Name it with --database.")
    with TemporaryDirectory(prefix="ostler-llamactl-") as folder:
        copy = Path(folder) / DATABASE
        try:
            for ending in ("", "-wal"):
                if Path(f"{path}{ending}").is_file():
                    shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
            with closing(sqlite3.connect(copy)) as connection:
                return _rows(connection, path)
        except (OSError, sqlite3.Error) as error:
            raise NotLlamactl("database", f"{path} cannot be read: {error}") from error


def _rows(connection: sqlite3.Connection, path: Path) -> dict[str, Sequence[Row]]:
    connection.row_factory = sqlite3.Row
    there = {row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if NEEDED not in there:
        raise NotLlamactl("database", f"{path} is no database of llamactl: it has no table {NEEDED}")
    found: dict[str, Sequence[Row]] = {}
    for name, columns in TABLES.items():
        rows = connection.execute(f"SELECT * FROM {name} ORDER BY 1") if name in there else None
        if rows is not None and not columns <= {column[0] for column in rows.description}:
            raise NotLlamactl("database", f"{path} is no database of llamactl: {name} has other columns")
        found[name] = [] if rows is None else [dict(row) for row in rows]
    return found
