"""A whole Ostler on a free port, in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.app import Ostler, Server, address, build, listen
from ostler.core.settings_sources import load_settings
from ostler.runtimes.base import Runtime
from tests.schema_file import place_database


@dataclass(frozen=True, slots=True)
class RunningOstler:
    """A server that answers at `url`; `ostler` are its parts."""

    url: str
    ostler: Ostler
    data_dir: Path


@asynccontextmanager
async def running_ostler(
    data_dir: Path, *, runtimes: Mapping[str, Runtime] | None = None, **settings: Any
) -> AsyncIterator[RunningOstler]:
    """Run a server with these settings; its engines end with it unless `stop_engines_on_exit=False`."""
    flags = {
        "data_dir": data_dir,
        "hub_cache_dir": data_dir / "hub",
        "port": 0,
        "offline": True,
        "stop_engines_on_exit": True,
        **settings,
    }
    data_dir.mkdir(parents=True, exist_ok=True)
    if "database_url" not in settings:
        place_database(data_dir)
    loaded = load_settings(flags=flags, environ={})
    ostler = build(loaded, runtimes=runtimes)
    listening = listen(loaded.values.host, loaded.values.port)
    answering = asyncio.Event()
    async with ostler.running():
        server = Server(ostler, on_startup=answering.set)
        serving = asyncio.create_task(server._serve([listening]))
        try:
            async with asyncio.timeout(10):
                await answering.wait()
            yield RunningOstler(address(listening), ostler, data_dir)
        finally:
            server.should_exit = True
            await serving
