"""A real gateway on a real uvicorn, in front of an engine whose every step a test holds in its hand."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.http import HeaderMap
from pyreqwest.request import StreamRequest

from ostler.access.service import Access
from ostler.api.dialects.llamactl.forwarding import Forwarded
from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.principals import Principal
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings
from ostler.core.states import DesiredState, InstanceState
from ostler.gateway import Gateway, GatewayMetrics
from ostler.gateway.server import OneWriteProtocol
from ostler.instances.leases import Endpoint, Lease, Routes
from ostler.models.index import ModelIndex
from ostler.models.records import Model, Policy, Source
from ostler.upstreams.entries import External
from ostler.upstreams.pools import Pools
from ostler.usage import RequestRecord, UsageLog, UsageWriter
from tests.nothing_cached import NothingCached

INTERNAL_KEY = "internal-key-of-the-engine"
Reply = Callable[["Seen"], Awaitable[None]]


@dataclass
class Seen:
    """One request as the engine got it, and the means to answer it."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[str, str]]
    body: bytes
    receive: Any
    send: Any

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    async def start(self, status: int = 200, content_type: str = "application/json", **more: str) -> None:
        headers = [(b"content-type", content_type.encode())]
        headers += [(key.replace("_", "-").encode(), value.encode()) for key, value in more.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": body})

    async def json(self, body: bytes, status: int = 200) -> None:
        await self.start(status, content_length=str(len(body)))
        await self.end(body)

    async def until_gone(self) -> None:
        """Wait until the gateway closes the connection."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def answer_ok(seen: Seen) -> None:
    await seen.json(b'{"ok": true}')


@dataclass
class ScriptedEngine:
    """An engine that does what `reply` says and remembers what it was asked."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    reply: Reply = answer_ok

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        path = scope["raw_path"].decode()
        seen = Seen(scope["method"], path, scope["query_string"], headers, body, receive, send)
        self.seen.append(seen)
        await self.reply(seen)


@dataclass
class Looks:
    state: InstanceState
    context_length: int | None = None


class HeldInstances:
    """The real leases over engines that a test starts, holds back or breaks."""

    def __init__(self) -> None:
        self.routes = Routes()
        self.broken: list[int] = []
        self.asked: list[tuple[int, str, float]] = []
        self.batch: list[bool] = []
        self.may_start = asyncio.Event()
        self.waiting = asyncio.Event()
        self.gave_up = asyncio.Event()
        self.failure: Exception | None = None
        self.endpoints: dict[int, Endpoint] = {}

    def publish(self, model_id: int, url: str, limit: int | None = None) -> Endpoint:
        endpoint = Endpoint(
            model_id * 10,
            url,
            INTERNAL_KEY,
            engine="llamacpp",
            time=Clock(),
            limit=limit,
            on_release=lambda: None,
            on_broken=lambda: self.broken.append(model_id),
        )
        self.routes.publish(model_id, endpoint)
        self.endpoints[model_id] = endpoint
        return endpoint

    def try_lease(self, model_id: int) -> Lease | None:
        return self.routes.try_lease(model_id)

    async def lease(
        self, model_id: int, *, principal: Principal, timeout_s: float, is_batch: bool = False
    ) -> Lease:
        self.batch.append(is_batch)
        self.asked.append((model_id, principal.name, timeout_s))
        self.waiting.set()
        try:
            await self.may_start.wait()
        except asyncio.CancelledError:
            self.gave_up.set()
            raise
        if self.failure is not None:
            raise self.failure
        lease = self.routes.try_lease(model_id)
        assert lease is not None
        return lease

    async def context_length(self, model_id: int) -> int | None:
        return self.view(model_id).context_length

    def view(self, model_id: int) -> Looks:
        endpoint = self.endpoints.get(model_id)
        if endpoint is None:
            return Looks(InstanceState.STOPPED)
        return Looks(InstanceState.RUNNING, endpoint.context_length)


class HeldSettings:
    """Settings that a test may change on the way."""

    def __init__(self, settings: Settings) -> None:
        self.current = settings

    def __call__(self) -> Settings:
        return self.current

    def change(self, **values: Any) -> None:
        self.current = Settings(**{**self.current.model_dump(), **values})


@dataclass(frozen=True)
class Answer:
    """A whole answer, as the client got it."""

    status: int
    headers: HeaderMap
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json()["error"]
        return error


@dataclass
class Stand:
    """The gateway and everything around it."""

    url: str
    gateway: Gateway
    engine: ScriptedEngine
    instances: HeldInstances
    index: ModelIndex
    access: Access
    usage: UsageWriter
    log: UsageLog
    settings: HeldSettings
    registry: CollectorRegistry
    metrics: GatewayMetrics
    client: Client
    pools: Pools
    entries: list[External]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def add(self, name: str, *, running: bool = True, **fields: Any) -> Model:
        """A model; by default the scripted engine serves it."""
        now = datetime.now(UTC)
        model = Model(
            id=len(self.index.all()) + 1,
            name=name,
            aliases=(),
            description="",
            origin="native",
            read_only=False,
            engine="llamacpp",
            runtime="process",
            engine_command=None,
            node="here",
            task="",
            source=Source("file", path="/secret/place/model.gguf"),
            options={},
            extra_args=(),
            env={},
            request_defaults={},
            policy=Policy(),
            dialect_data={},
            desired_state=DesiredState.STOPPED,
            archived=False,
            revision=1,
            created_at=now,
            updated_at=now,
        )
        model = replace(model, **fields)
        self.index.put(model)
        if running:
            self.instances.publish(model.id, self.engine.url)
        return model

    async def ask(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> Answer:
        """One request, and the whole answer to it."""
        async with self.streamed(method, path, body, **headers) as response:
            content = await response.body_reader.bytes()
            return Answer(response.status, response.headers, bytes(content))

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, **headers)

    async def post(self, path: str, body: bytes | str, **headers: str) -> Answer:
        return await self.ask("POST", path, body, **headers)

    def streamed(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> StreamRequest:
        """A request whose answer is read piece by piece, as the pieces come."""
        builder = self.client.request(method, self.url + path)
        builder = builder.headers([(name.replace("_", "-"), value) for name, value in headers.items()])
        if body:
            builder = builder.body_bytes(body.encode() if isinstance(body, str) else body)
        return builder.streamed_read_buffer_limit(0).build_streamed()

    @asynccontextmanager
    async def leaving(self, path: str, body: str) -> AsyncIterator[asyncio.StreamReader]:
        """A client that sends a request and, at the end of the block, is gone without a word."""
        reader, writer = await asyncio.open_connection(*self.address)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        try:
            yield reader
        finally:
            writer.transport.abort()

    async def raw(self, request: bytes) -> bytes:
        """Send bytes as they are, and give back all that comes until the connection closes."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(request)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer

    async def records(self) -> list[RequestRecord]:
        """What was accounted so far."""
        await self.usage.flush()
        return [stored.record for stored in (await self.log.find(descending=False)).items]


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """An ASGI application on a free port, without uvicorn's own loop around it."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    config = uvicorn.Config(
        app, loop="none", http=OneWriteProtocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listening])
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=5)


async def the_rest(scope: Any, receive: Any, send: Any) -> None:
    """The inner application: it says that it was asked."""
    body = b"inner:" + scope["path"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def stand(database: Database, tmp_path: Path) -> AsyncIterator[Stand]:
    """A gateway on loopback without keys, one running model `demo`."""
    settings = HeldSettings(Settings(data_dir=tmp_path / "data", hub_cache_dir=tmp_path / "hub"))
    clock = Clock()
    events = EventLog(database, clock)
    access = Access(database, events, clock, ServerSecret(b"s" * 32), settings)
    await access.start()
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    usage = UsageWriter(database)
    index, instances, engine = ModelIndex(), HeldInstances(), ScriptedEngine()
    entries: list[External] = []
    pools = Pools(settings, clock, lambda: entries)
    gateway = Gateway(
        the_rest,
        access=access,
        models=index,
        automatic=NothingCached(),
        instances=instances,
        pools=pools,
        addresses=Forwarded(),
        usage=usage,
        metrics=metrics,
        settings=settings,
        clock=clock,
    )
    await gateway.start()
    await pools.start()
    async with serving(engine) as engine_url, serving(gateway) as url:
        engine.url = engine_url
        async with (
            ClientBuilder()
            .no_proxy()
            .follow_redirects(False)
            .timeout(timedelta(seconds=20))
            .build() as client
        ):
            log = UsageLog(database, clock)
            made = Stand(
                url,
                gateway,
                engine,
                instances,
                index,
                access,
                usage,
                log,
                settings,
                registry,
                metrics,
                client,
                pools,
                entries,
            )
            made.add("demo")
            yield made
    await pools.close()
    await gateway.close()
    await access.close()
