"""A room of instances over a real database, library and engine table, with a runtime that can be held."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import Event, EventLog
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings
from ostler.engines.registry import default_engines
from ostler.fit.devices import Devices
from ostler.fit.pretend import pretended
from ostler.fit.reading import Shapes
from ostler.instances.service import Instances
from ostler.library.service import Library
from ostler.models.records import Model, NewModel
from ostler.models.service import Models
from ostler.models.sources import SourceReader
from ostler.runtimes.base import Runtime
from tests.runtimes.fake import FakeRuntime

QUICK = {
    "probe_interval_s": 0.05,
    "probe_timeout_s": 1.0,
    "restart_backoff_s": 0.01,
    "drain_timeout_s": 20.0,
    "stop_grace_s": 1.0,
}


@dataclass
class Holder:
    """Settings that a test may change at any time."""

    current: Settings

    def change(self, **values: Any) -> None:
        self.current = self.current.model_copy(update=values)


@dataclass
class House:
    """One server's rooms. `again` in the fixture makes another over the same world."""

    instances: Instances
    models: Models
    events: EventLog
    settings: Holder
    runtime: Runtime
    seen: list[Event] = field(default_factory=list)

    async def add(self, name: str, **recipe: Any) -> Model:
        """A model of the demo file."""
        recipe.setdefault("policy", {})
        return await self.models.create(NewModel({"path": f"{name}.gguf"}, name=name, **recipe), LOCAL_ADMIN)

    async def lease(self, model: Model, timeout_s: float = 20) -> Any:
        return await self.instances.lease(model.id, principal=LOCAL_ADMIN, timeout_s=timeout_s)

    def state(self, model: Model) -> str:
        return self.instances.view(model.id).state.value

    async def happened(self, kind: str) -> list[Event]:
        """The kept events of this kind, oldest first."""
        return (await self.events.find(kind=kind, newest_first=False, limit=500))[0]

    async def until(self, kind: str, count: int = 1) -> Event:
        """Wait until this event has happened so many times; gives the last of them."""
        async with asyncio.timeout(20):
            seen = 0
            async for event in self.events.listen(after_id=0):
                seen += event.kind == kind
                if seen == count:
                    return event
        raise AssertionError


@dataclass
class Fake(House):
    """The same with the fake runtime."""

    runtime: FakeRuntime


@pytest.fixture
def models_dir(tmp_path: Path, demo_model: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        shutil.copy(demo_model, folder / f"{name}.gguf")
    return folder


Build = Callable[..., Awaitable[House]]


@asynccontextmanager
async def running_house(
    database: Database,
    folder: Path,
    runtime: Runtime,
    *,
    clock: Clock | None = None,
    settings: Mapping[str, Any] | None = None,
    devices: Devices | None = None,
    house_type: type[House] = House,
) -> AsyncIterator[House]:
    """One server's rooms, started; closed at the end (its engines go on)."""
    values = Settings(
        data_dir=folder / "data",
        models_dir=folder / "models",
        hub_cache_dir=folder / "hub",
        **{**QUICK, **(settings or {})},
    )
    clock = clock or Clock()
    (folder / "data").mkdir(exist_ok=True)
    events = EventLog(database, clock)
    library = Library(database, events, clock, values, "here")
    await library.start()
    engines = default_engines(values)
    models = Models(database, events, clock, engines, SourceReader(library, folder / "models"), "here")
    await models.start()
    secret = ServerSecret.load(folder / "data" / "secret")
    holder = Holder(values)
    devices = devices or Devices(pretend=pretended(values.devices) if values.devices else ())
    runtimes = {runtime.name: runtime}
    instances = Instances(
        database, events, clock, holder, models, engines, runtimes, secret, "here", devices, Shapes()
    )
    await instances.start_service()
    try:
        yield house_type(instances, models, events, holder, runtime)
    finally:
        await instances.close()
        events.close()


@pytest.fixture
async def build(
    database: Database, tmp_path: Path, models_dir: Path
) -> AsyncIterator[Callable[..., Awaitable[Fake]]]:
    """Makes servers on one database; each with a fake runtime, on a `world` of engines if given."""
    async with AsyncExitStack() as stack:

        async def make(runtime: FakeRuntime | None = None, **more: Any) -> Fake:
            runtime = runtime or FakeRuntime()
            stack.push_async_callback(runtime.world.close)
            house = await stack.enter_async_context(
                running_house(database, tmp_path, runtime, house_type=Fake, **more)
            )
            assert isinstance(house, Fake)
            return house

        yield make


@pytest.fixture
async def house(build: Callable[..., Awaitable[Fake]]) -> Fake:
    """One server with the fake runtime."""
    return await build()
