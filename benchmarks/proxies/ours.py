"""Ostler's gateway as it is served: real keys, names, limits, accounting and database.

Only the engine is not started: the upstream's address is published as that of a running one.
Run: python -m benchmarks.proxies.ours PORT UPSTREAM_URL
"""

from __future__ import annotations

import socket
import sys
import tempfile
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

MODEL = "echo"


@dataclass(frozen=True)
class Running:
    """What the model list would say."""

    state: InstanceState = InstanceState.RUNNING
    context_length: int | None = None


class OneEngine:
    """The routes of instances, with one engine in them."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._routes = Routes()
        self.try_lease = self._routes.try_lease
        endpoint = Endpoint(
            1,
            url,
            "internal",
            engine="llamacpp",
            time=clock,
            limit=None,
            on_release=lambda: None,
            on_broken=lambda: print("the upstream broke off", file=sys.stderr),
        )
        self._routes.publish(1, endpoint)

    async def lease(
        self, model_id: int, *, principal: Principal, timeout_s: float, is_batch: bool = False
    ) -> Lease:
        """Never needed."""
        raise Busy("not running", retry_after_s=1)

    def view(self, model_id: int) -> Running:
        """Running."""
        return Running()


def one_model() -> Model:
    now = datetime.now(UTC)
    return Model(
        id=1,
        name=MODEL,
        aliases=(),
        description="",
        origin="native",
        read_only=False,
        engine="llamacpp",
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


async def serve(port: int, upstream: str, folder: Path) -> None:
    """Serve until told to end."""
    settings = Settings(data_dir=folder)
    clock = Clock()
    database = Database(settings.effective_database_url)
    await upgrade(database)
    events = EventLog(database, clock)
    access = Access(database, events, clock, ServerSecret.load(folder / "secret"), lambda: settings)
    await access.start()
    index = ModelIndex()
    index.fill([one_model()])
    usage = UsageWriter(database)
    await usage.start()
    gateway = Gateway(
        nothing,
        access=access,
        models=index,
        automatic=NothingCached(),
        instances=OneEngine(upstream, clock),
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


def main(port: int, upstream: str) -> None:
    """Serve with a data folder of its own."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as folder:
        uvloop.run(serve(port, upstream, Path(folder)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
