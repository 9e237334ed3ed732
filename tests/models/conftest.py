"""A models room over a real library and the real engine tables."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.settings import Settings
from ostler.engines.registry import default_engines
from ostler.library.service import Library
from ostler.models.service import Models
from ostler.models.sources import SourceReader


@pytest.fixture
def models_dir(tmp_path: Path, demo_model: Path) -> Path:
    """A models folder that holds the demo model as demo.gguf."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(demo_model, folder / "demo.gguf")
    return folder


@pytest.fixture
async def models(
    database: Database, events: EventLog, tmp_path: Path, models_dir: Path
) -> AsyncIterator[Models]:
    settings = Settings(data_dir=tmp_path / "data", models_dir=models_dir, hub_cache_dir=tmp_path / "hub")
    clock = Clock()
    library = Library(database, events, clock, settings, "here")
    await library.start()
    sources = SourceReader(library, settings.effective_models_dir)
    rooms = Models(database, events, clock, default_engines(settings), sources, "here")
    await rooms.start()
    yield rooms
