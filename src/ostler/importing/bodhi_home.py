"""BodhiApp's folder (`$BODHI_HOME`), read as it is: `aliases/*.yaml`, `models.yaml`, `settings.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ostler.core.errors import InvalidField

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_ALIASES = 10_000
DATABASE = "bodhi.sqlite"
MARKS = ("aliases", "settings.yaml", "models.yaml", DATABASE, "secrets.yaml")
"""One of these is in every folder of BodhiApp's."""


class NotBodhiHome(InvalidField):
    """The folder is not there, or it is none of BodhiApp's."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that is no YAML, or larger than such files are; `reason` completes "it ..."."""

    reason: str


@dataclass(frozen=True, slots=True)
class BodhiHome:
    """What is in the folder. Aliases stand under their file's name; a file that is not there is None."""

    aliases: Mapping[str, Any]
    models: Any
    settings: Any
    has_database: bool


def read_home(home: Path) -> BodhiHome:
    """Everything that can be taken over. Blocking. Raises NotBodhiHome."""
    if not home.is_dir() or not any((home / mark).exists() for mark in MARKS):
        raise NotBodhiHome(
            "home",
            f"{home} is no folder of BodhiApp's on the server's machine",
            hint="Name the folder that holds aliases/ and settings.yaml, often ~/.cache/bodhi.",
        )
    return BodhiHome(
        aliases={path.name: _read(path) for path in _alias_files(home / "aliases")},
        models=_read(home / "models.yaml"),
        settings=_read(home / "settings.yaml"),
        has_database=(home / DATABASE).exists(),
    )


def _alias_files(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        return ()
    found = [path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file()]
    return sorted(found)[:MAX_ALIASES]


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return Unreadable(f"is larger than {MAX_FILE_BYTES:,} bytes")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unreadable(f"cannot be read: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        return Unreadable(f"is not valid YAML: {' '.join(str(error).split())[:300]}")
