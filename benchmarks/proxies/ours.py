"""Ostler's gateway as it is served: real keys, names, limits, accounting and database.

Only the engine is not started: the upstream's address is published as that of a running one, of llama.cpp.
A second upstream is published as one of vLLM.
Run: python -m benchmarks.proxies.ours PORT UPSTREAM_URL [SECOND_URL]
"""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from ostler.access.service import Access
from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import Busy
from ostler.core.events import EventLog
from ostler.core.migrate import upgrade
from ostler.core.principals import Principal
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings
from ostler.core.states import DesiredState, InstanceState
from ostler.gateway import Gateway, GatewayMetrics
from ostler.gateway.server import OneWriteProtocol, acceptors, settle_memory
from ostler.instances.leases import Endpoint, Lease, Routes
from ostler.models.index import ModelIndex
from ostler.models.records import Model, Policy, Source
from ostler.upstreams.pools import Pools
from ostler.usage import UsageWriter
from tests.nothing_cached import NothingCached

MODELS = (("echo", "llamacpp"), ("twin", "vllm"))
"""The names of the upstreams, and what they are said to be."""


@dataclass(frozen=True)
class Running:
    """What the model list would say."""

    state: InstanceState = InstanceState.RUNNING
    context_length: int | None = None


class FixedEngines:
    """The routes of instances, with an engine for each URL in them."""

    def __init__(self, urls: Sequence[str], clock: Clock) -> None:
        self._routes = Routes()
        self.try_lease = self._routes.try_lease
        for number, (url, (_, engine)) in enumerate(zip(urls, MODELS, strict=False), start=1):
            endpoint = Endpoint(
                number,
                url,
                "internal",
                engine=engine,
                time=clock,
                limit=None,
                on_release=lambda: None,
                on_broken=lambda: print("the upstream broke off", file=sys.stderr),
            )
            self._routes.publish(number, endpoint)

    async def lease(
        self, model_id: int, *, principal: Principal, timeout_s: float, is_batch: bool = False
    ) -> Lease:
        """Never needed."""
        raise Busy("not running", retry_after_s=1)

    async def context_length(self, model_id: int) -> int | None:
        """Nobody says."""
        return None

    def view(self, model_id: int) -> Running:
        """Running."""
        return Running()


def model_of(number: int, name: str, engine: str) -> Model:
    now = datetime.now(UTC)
    return Model(
        id=number,
        name=name,
        aliases=(),
        description="",
        origin="native",
        read_only=False,
        engine=engine,
        runtime="process",
        engine_command=None,
        node="here",
        task="",
        source=Source("file", path="/echo.gguf"),
        options={},
        extra_args=(),
        env={},
        request_defaults={"temperature": 0.7},
        policy=Policy(),
        dialect_data={},
        desired_state=DesiredState.RUNNING,
        archived=False,
        revision=1,
        created_at=now,
        updated_at=now,
    )


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """The inner application, which is not asked."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def serve(port: int, upstreams: Sequence[str], folder: Path) -> None:
    """Serve until told to end."""
    settings = Settings(data_dir=folder)
    clock = Clock()
    database = Database(settings.effective_database_url)
    await upgrade(database)
    events = EventLog(database, clock)
    access = Access(database, events, clock, ServerSecret.load(folder / "secret"), lambda: settings)
    await access.start()
    index = ModelIndex()
    index.fill([model_of(number, *told) for number, told in enumerate(MODELS[: len(upstreams)], start=1)])
    usage = UsageWriter(database)
    await usage.start()
    gateway = Gateway(
        nothing,
        access=access,
        models=index,
        automatic=NothingCached(),
        instances=FixedEngines(upstreams, clock),
        pools=Pools(lambda: settings, clock, tuple),
        usage=usage,
        metrics=GatewayMetrics(CollectorRegistry()),
        settings=lambda: settings,
        clock=clock,
    )
    await gateway.start()
    config = uvicorn.Config(
        gateway,
        loop="none",
        http=OneWriteProtocol,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
        access_log=False,
        lifespan="off",
        backlog=4096,
    )
    settle_memory()
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    await uvicorn.Server(config).serve(sockets=acceptors(listening))
    await gateway.close()
    await usage.close()
    await access.close()
    await database.close()


def main(port: int, *upstreams: str) -> None:
    """Serve with a data folder of its own."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as folder:
        uvloop.run(serve(port, upstreams, Path(folder)))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
