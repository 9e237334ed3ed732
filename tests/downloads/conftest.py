"""Downloads on real parts: the test hub, a database, jobs, a library and worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.settings import Settings
from ostler.downloads.service import Downloads
from ostler.hub.service import Hub
from ostler.jobs.records import Job
from ostler.jobs.service import Jobs
from ostler.library.service import Library
from tests.hub.server import HubServer

BACKOFF_S = 0.02


@dataclass
class Bed:
    """One server's downloads."""

    settings: Settings
    jobs: Jobs
    downloads: Downloads
    library: Library

    @property
    def cache(self) -> Path:
        return self.settings.hub_cache_dir

    async def pulled(self, spec: str, **more: Any) -> Job:
        """Pull and wait for the end, whatever it is."""
        job = await self.downloads.pull(spec, principal=LOCAL_ADMIN, **more)
        return await self.jobs.wait(job.id, 60)

    def visible(self) -> list[str]:
        """Every file that somebody could take for a model's."""
        snapshots = self.cache.glob("models--*/snapshots/*/**/*")
        return sorted(path.name for path in snapshots if not path.is_dir())


MakeBed = Callable[..., Awaitable[Bed]]


@pytest.fixture
async def make_bed(
    hub_server: HubServer, database: Database, events: EventLog, tmp_path: Path
) -> AsyncIterator[MakeBed]:
    """Makes a started server's downloads; keyword arguments are settings, `tokens` those of models by id."""
    async with AsyncExitStack() as ending:

        async def make(tokens: Mapping[int, str] | None = None, **values: Any) -> Bed:
            defaults = {
                "data_dir": tmp_path / "data",
                "hub_cache_dir": tmp_path / "hub",
                "hf_endpoint": hub_server.endpoint,
                "disk_reserve_bytes": 0,
                "download_timeout_s": 5.0,
            }
            settings = Settings(**{**defaults, **values})
            (tmp_path / "data" / "models").mkdir(parents=True, exist_ok=True)
            jobs = Jobs(database, events, Clock(), "here", "one")
            library = Library(database, events, Clock(), settings, "here")
            await library.start()
            downloads = Downloads(
                *(jobs, Hub(settings), library, settings, events, Clock(), (tokens or {}).get),
                backoff_s=BACKOFF_S,
            )
            await jobs.start()
            ending.push_async_callback(jobs.stop)
            return Bed(settings, jobs, downloads, library)

        yield make


@pytest.fixture
async def bed(make_bed: MakeBed) -> Bed:
    return await make_bed()
