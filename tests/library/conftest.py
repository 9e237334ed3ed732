"""A library over two folders of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.settings import Settings
from ostler.library.service import Library


@dataclass(frozen=True)
class Place:
    """The library with its models folder and its hub cache."""

    library: Library
    models: Path
    cache: Path
    settings: Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("data", "models", "hub"):
        (tmp_path / name).mkdir()
    return Settings(
        data_dir=tmp_path / "data", models_dir=tmp_path / "models", hub_cache_dir=tmp_path / "hub"
    )


@pytest.fixture
async def place(database: Database, events: EventLog, settings: Settings) -> Place:
    library = Library(database, events, Clock(), settings, "here")
    await library.start()
    return Place(library, settings.effective_models_dir, settings.hub_cache_dir, settings)
