"""The composition root: everything is built and wired here, once.

`build` makes an Ostler from settings; `serve` runs one until it is told to end. Tests build their
own in a line. No other module reads the environment or creates a service.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import uvicorn
from prometheus_client import CollectorRegistry

from ostler import __version__
from ostler.access.asgi import HearOut
from ostler.access.service import Access
from ostler.api.app import build_api
from ostler.api.dialects.llamactl.forwarding import Forwarded
from ostler.api.dialects.ollama.exchanges import translators
from ostler.api.dialects.spoken import is_spoken
from ostler.api.services import Services
from ostler.catalog.pulling import PredefinedPulls
from ostler.chats.service import Chats
from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import Conflict, OstlerError
from ostler.core.events import EventLog
from ostler.core.live_settings import LiveSettings
from ostler.core.migrate import upgrade
from ostler.core.principals import SYSTEM
from ostler.core.secrets import ServerSecret
from ostler.core.server_lock import ServerLock
from ostler.core.settings import Settings
from ostler.core.settings_sources import LoadedSettings
from ostler.downloads.plan import DownloadPlan
from ostler.downloads.service import Downloads
from ostler.downloads.uploads import Uploads
from ostler.engines.registry import Engines, default_engines
from ostler.fit.answering import Fits
from ostler.fit.devices import Devices
from ostler.fit.pretend import pretended
from ostler.fit.reading import Read, Shapes, shape_on_hub
from ostler.gateway.app import Gateway
from ostler.gateway.metrics import GatewayMetrics
from ostler.gateway.server import OneWriteProtocol, acceptors, settle_memory
from ostler.hub.service import Hub
from ostler.hub.specs import parse_spec
from ostler.importing.bodhi import BodhiImport
from ostler.importing.cortex import CortexImport
from ostler.importing.llamactl import LlamactlImport
from ostler.instances.dry_runs import HubView
from ostler.instances.service import Instances
from ostler.jobs.service import Jobs
from ostler.library.cached_models import CachedModels
from ostler.library.service import Library
from ostler.models.automatic import AutomaticModels
from ostler.models.predefined import Predefined
from ostler.models.recipes import Recipes
from ostler.models.records import Model
from ostler.models.service import Models
from ostler.models.sources import SourceReader
from ostler.reshaping.service import Reshaping
from ostler.runtimes.base import Runtime
from ostler.runtimes.container_config import House
from ostler.runtimes.docker import DockerRuntime
from ostler.runtimes.docker_client import find_host
from ostler.runtimes.process import ProcessRuntime
from ostler.upstreams.entries import Externals
from ostler.upstreams.pools import Pools
from ostler.usage import UsageLog, UsageWriter
from ostler.usage.engine_numbers import EngineReader
from ostler.usage.figures import UsageFigures
from ostler.usage.host_series import HostSeries

log = logging.getLogger("ostler.app")
HOUSEKEEPING_S = 3600.0


class PortInUse(Conflict):
    """Something else listens where we were told to."""

    hint = "Choose another port with --port, or --port 0 for a free one."


def default_runtimes(settings: Settings, secret: ServerSecret, clock: Clock) -> Mapping[str, Runtime]:
    """The runtimes of this version; whether this host can carry one, its `check` says."""
    engines_dir = settings.data_dir / "engines"
    return {
        "process": ProcessRuntime(engines_dir, settings.engine_log_bytes),
        "docker": docker_runtime(settings, secret.derive("identity on container daemons")[:16], clock),
    }


def docker_runtime(settings: Settings, server_id: str, clock: Clock) -> DockerRuntime:
    """The docker runtime as the settings say; `server_id` marks the containers that are ours."""
    house = House(
        server_id=server_id,
        hub_cache=settings.hub_cache_dir,
        network=settings.docker_network,
        name_prefix=settings.docker_name_prefix,
        log_bytes=settings.engine_log_bytes,
    )
    host = find_host(settings.docker_host, os.environ)
    logs_dir = settings.data_dir / "engines" / "container-logs"
    return DockerRuntime(host, house, logs_dir, offline=settings.offline, clock=clock)


@dataclass(frozen=True, slots=True)
class Ostler:
    """One wired Ostler: `gateway` is the ASGI application, `services` what the doors call."""

    services: Services
    gateway: Gateway
    usage_writer: UsageWriter

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Ostler]:
        """Everything started in order, and ended in the opposite order, each with its own errors."""
        s = self.services
        async with AsyncExitStack() as ending:
            ending.push_async_callback(s.database.close)
            await upgrade(s.database)
            await s.settings.start()
            await s.access.start()
            midnight = s.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
            s.access.begin_day(await s.usage.used_since(midnight))
            ending.push_async_callback(s.access.close)
            await s.library.start()
            ending.push_async_callback(s.library.close)
            await s.models.start()
            await s.externals.start()
            await self.usage_writer.start()
            ending.push_async_callback(self.usage_writer.close)
            await s.host.start()
            ending.push_async_callback(s.host.close)
            await s.numbers.start()
            ending.push_async_callback(s.numbers.close)
            await s.pools.start()
            ending.push_async_callback(s.pools.close)
            await s.jobs.start()
            ending.push_async_callback(s.jobs.stop)
            await s.instances.start_service()
            ending.push_async_callback(self._close_instances)
            await self.gateway.start()
            ending.push_async_callback(self.gateway.close)
            housekeeping = asyncio.create_task(_keep_house(s), name="housekeeping")
            ending.push_async_callback(_end, housekeeping)
            yield self

    def begin_shutdown(self) -> None:
        """End what would hold connections open: event streams and waiting requests."""
        self.services.closing.set()
        self.services.events.close()

    async def _close_instances(self) -> None:
        s = self.services
        await s.instances.close(stop_engines=s.settings.current.stop_engines_on_exit)


def build(
    loaded: LoadedSettings,
    *,
    clock: Clock | None = None,
    engines: Engines | None = None,
    runtimes: Mapping[str, Runtime] | None = None,
) -> Ostler:
    """Wire an Ostler. It opens nothing but the server's secret; `running` does the rest."""
    settings = loaded.values
    clock = clock or Clock()
    node = platform.node() or "localhost"
    secret = ServerSecret.load(settings.data_dir / "secret")
    database = Database(settings.effective_database_url)
    events = EventLog(database, clock)
    live = LiveSettings(loaded, database, events, clock)
    access = Access(database, events, clock, secret, live)
    library = Library(database, events, clock, settings, node)
    hub = Hub(settings)
    jobs = Jobs(database, events, clock, node, uuid4().hex)
    reshaping = Reshaping(jobs, library, lambda: live.current)
    engines = engines or default_engines(settings)
    sources = SourceReader(library, settings.effective_models_dir)
    models = Models(database, events, clock, engines, sources, node, lambda: live.current.max_models)
    downloads = Downloads(jobs, hub, library, live, events, clock, models.hub_token_of)
    automatic = AutomaticModels(library, models, engines)
    runtimes = runtimes or default_runtimes(settings, secret, clock)
    externals = Externals(database, events, clock, engines, models.find)
    pools = Pools(live, clock, externals.all)
    shapes = Shapes()
    devices = Devices(
        pretend=pretended(settings.devices) if settings.devices else (), listed=engines.listed_devices
    )
    instances = Instances(
        database,
        events,
        clock,
        live,
        models,
        engines,
        runtimes,
        secret,
        node,
        devices,
        shapes,
        _asked_of(hub, downloads),
        gpus_are_chosen=any(name.endswith("_VISIBLE_DEVICES") for name in os.environ),
    )
    recipes = Recipes(database, events, clock, models)
    predefined = Predefined(lambda: live.current.effective_predefined_file)
    chats = Chats(database, clock)
    registry = CollectorRegistry()
    counted = GatewayMetrics(registry, lambda: usage_writer.dropped)
    counted.known_urls = lambda: _addresses(instances, pools)
    usage_writer = UsageWriter(database)
    figures = UsageFigures(database)
    services = Services(
        settings=live,
        database=database,
        events=events,
        clock=clock,
        access=access,
        library=library,
        cached=CachedModels(library, events, settings),
        hub=hub,
        jobs=jobs,
        downloads=downloads,
        uploads=Uploads(live),
        reshaping=reshaping,
        engines=engines,
        runtimes=runtimes,
        models=models,
        automatic=automatic,
        recipes=recipes,
        predefined=predefined,
        predefined_pulls=PredefinedPulls(predefined, downloads, models),
        chats=chats,
        cortex_import=CortexImport(access, models, recipes, chats, externals),
        bodhi_import=BodhiImport(models, engines, library, live),
        llamactl_import=LlamactlImport(access, models, live, clock),
        externals=externals,
        pools=pools,
        instances=instances,
        usage=UsageLog(database, clock),
        figures=figures,
        numbers=EngineReader(engines, figures, clock, secret.engine_key),
        host=HostSeries(clock, lambda: live.current.effective_models_dir),
        devices=devices,
        shapes=shapes,
        fits=Fits(devices, lambda: live.current.reserve_by_device),
        metrics=registry,
        node=node,
        version=__version__,
    )
    gateway = Gateway(
        build_api(services),
        access=access,
        models=models,
        automatic=automatic,
        instances=instances,
        usage=usage_writer,
        metrics=counted,
        settings=live,
        clock=clock,
        pools=pools,
        is_inner=is_spoken,
        translators=translators(services),
        addresses=Forwarded(),
    )
    return Ostler(services, gateway, usage_writer)


def _asked_of(hub: Hub, downloads: Downloads) -> HubView:
    """What a dry run asks about files that are not here."""

    async def plan(model: Model) -> DownloadPlan:
        return await downloads.plan(model.source.label, principal=SYSTEM, token=model.hub_token)

    async def read(model: Model) -> Read:
        spec = parse_spec(model.source.label, endpoint=hub.endpoint)
        return shape_on_hub(await hub.with_token(model.hub_token).inspect(spec))

    return HubView(plan, read)


class Server(uvicorn.Server):
    """uvicorn over a running Ostler: it says when it answers, and ends event streams before it waits."""

    def __init__(self, ostler: Ostler, *, on_startup: Callable[[], None]) -> None:
        super().__init__(_uvicorn_config(ostler))
        self._on_startup = on_startup
        self._before_shutdown = ostler.begin_shutdown

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM, and do not die of them: what stands around the server ends in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._on_startup()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, finish the ones that are there."""
        self._before_shutdown()
        await super().shutdown(sockets)


def _addresses(instances: Instances, pools: Pools) -> set[str]:
    """Everything that requests may be sent to now."""
    ours = {view.url for view in instances.views() if view.url is not None}
    return ours | {member.url for member in pools.members}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortInUse, or OstlerError for an address that is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # so that asyncio sets TCP_NODELAY
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno in (98, 48):
            raise PortInUse(f"port {port} on {host} is in use", port=port) from error
        raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror or error}", port=port) from error
    listening.set_inheritable(False)
    return listening


async def serve(loaded: LoadedSettings, *, on_ready: Callable[[str, str | None], None]) -> None:
    """Run a server until SIGINT or SIGTERM.

    `on_ready` gets the address and, at the first start on an address that others can reach, the
    administrator's new key. Raises DataDirInUse, DataDirUnusable, PortInUse, DatabaseIsNewer.
    """
    settings = loaded.values
    lock = ServerLock(settings.data_dir)
    lock.take()
    try:
        listening = listen(settings.host, settings.port)
        ostler = build(loaded)
        async with ostler.running():
            url = address(listening)
            first_key = await ostler.services.access.ensure_first_admin_key()

            def answering() -> None:
                started_at = ostler.services.clock.now().isoformat()
                lock.publish(
                    {"pid": os.getpid(), "url": url, "version": __version__, "started_at": started_at}
                )
                on_ready(url, first_key)

            settle_memory()
            server = Server(ostler, on_startup=answering)
            await server.serve(sockets=acceptors(listening))
    finally:
        lock.release()


def address(listening: socket.socket) -> str:
    """The URL under which a person on this machine reaches the socket."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _uvicorn_config(ostler: Ostler) -> uvicorn.Config:
    return uvicorn.Config(
        HearOut(ostler.gateway),
        loop="none",
        http=OneWriteProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
    )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _keep_house(services: Services) -> None:
    """Forget old events and requests, hourly, by the retention settings."""
    while True:
        settings = services.settings.current
        try:
            before = services.clock.now() - timedelta(days=settings.event_retention_days)
            await services.events.forget(before)
            await services.usage.forget(settings.usage_retention_days)
        except (OstlerError, OSError) as error:
            log.warning("housekeeping failed and will be tried again in an hour: %s", error)
        await asyncio.sleep(HOUSEKEEPING_S)
