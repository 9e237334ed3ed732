"""What the API is given: the rooms, made elsewhere (the composition root) and only used here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from ostler.access.keys import Keys
from ostler.core.principals import Principal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ostler.access.service import Access
    from ostler.catalog.pulling import PredefinedPulls
    from ostler.chats.service import Chats
    from ostler.core.clock import Clock
    from ostler.core.database import Database
    from ostler.core.events import EventLog
    from ostler.core.live_settings import LiveSettings
    from ostler.downloads.service import Downloads
    from ostler.downloads.uploads import Uploads
    from ostler.engines.registry import Engines
    from ostler.fit.answering import Fits
    from ostler.fit.devices import Devices
    from ostler.fit.reading import Shapes
    from ostler.hub.service import Hub
    from ostler.importing.bodhi import BodhiImport
    from ostler.importing.cortex import CortexImport
    from ostler.importing.llamactl import LlamactlImport
    from ostler.instances.service import Instances
    from ostler.jobs.service import Jobs
    from ostler.library.cached_models import CachedModels
    from ostler.library.service import Library
    from ostler.models.automatic import AutomaticModels
    from ostler.models.predefined import Predefined
    from ostler.models.recipes import Recipes
    from ostler.models.service import Models
    from ostler.reshaping.service import Reshaping
    from ostler.runtimes.base import Runtime
    from ostler.upstreams.entries import Externals
    from ostler.upstreams.pools import Pools
    from ostler.usage.engine_numbers import EngineReader
    from ostler.usage.figures import UsageFigures
    from ostler.usage.host_series import HostSeries
    from ostler.usage.log import UsageLog


@dataclass(slots=True)
class Services:
    """The rooms of one server.

    Setting `closing` ends every stream that would else go on for ever (events, followed logs):
    the server sets it when it begins to shut down. `worked_out` is what doors keep of what they made of
    values that do not change, by the door's own word and the id of the value's thing.
    """

    settings: LiveSettings
    database: Database
    events: EventLog
    clock: Clock
    access: Access
    library: Library
    cached: CachedModels
    hub: Hub
    jobs: Jobs
    downloads: Downloads
    uploads: Uploads
    reshaping: Reshaping
    engines: Engines
    runtimes: Mapping[str, Runtime]
    models: Models
    automatic: AutomaticModels
    recipes: Recipes
    predefined: Predefined
    predefined_pulls: PredefinedPulls
    chats: Chats
    cortex_import: CortexImport
    bodhi_import: BodhiImport
    llamactl_import: LlamactlImport
    externals: Externals
    pools: Pools
    instances: Instances
    usage: UsageLog
    figures: UsageFigures
    numbers: EngineReader
    host: HostSeries
    devices: Devices
    shapes: Shapes
    fits: Fits
    metrics: CollectorRegistry
    version: str
    node: str = "local"
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    worked_out: dict[str, dict[int, Any]] = field(default_factory=dict)

    @property
    def keys(self) -> Keys:
        """The API keys."""
        return self.access.keys


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Rooms = Annotated[Services, Depends(_services)]
"""A route's parameter: the rooms."""

Who = Annotated[Principal, Depends(_principal)]
"""A route's parameter: who asks; the door has already seen that the role is enough."""
