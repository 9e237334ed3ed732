"""A container between two states: Podman refuses to signal it then, and has ended it a moment later.

The daemon here is a stand-in, as no real one can be held in that state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ostler.core.clock import Clock
from ostler.core.launch import Handle
from ostler.runtimes.container_config import INSTANCE_LABEL, MODEL_LABEL, SERVER_LABEL, House
from ostler.runtimes.docker import DockerRuntime
from ostler.runtimes.docker_errors import DaemonRefused

LABELS = {SERVER_LABEL: "us", MODEL_LABEL: "1", INSTANCE_LABEL: "1"}


@dataclass
class Daemon:
    """Refuses so many signals; after `ends_after` of them the container has ended. `removed` counts."""

    ends_after: int
    asked: int = 0
    removed: int = 0

    def app(self) -> web.Application:
        """Its HTTP API, as much as a stop needs."""
        app = web.Application()
        app.router.add_get("/version", self.version)
        app.router.add_post("/v1.40/containers/c1/kill", self.kill)
        app.router.add_get("/v1.40/containers/c1/json", self.show)
        app.router.add_post("/v1.40/containers/c1/wait", self.wait)
        app.router.add_get("/v1.40/containers/c1/logs", self.logs)
        app.router.add_delete("/v1.40/containers/c1", self.delete)
        return app

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.40", "Version": "5"})

    async def kill(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"message": "container state improper: stopped"}, status=500)

    async def show(self, request: web.Request) -> web.Response:
        alive = self.asked < self.ends_after
        state = {"Status": "running" if alive else "exited", "Running": alive, "Pid": 0, "ExitCode": 0}
        return web.json_response({"Id": "c1", "State": state, "Config": {"Labels": LABELS, "Tty": True}})

    async def wait(self, request: web.Request) -> web.Response:
        return web.json_response({"StatusCode": 0})

    async def logs(self, request: web.Request) -> web.Response:
        return web.Response(body=b"the end\n", content_type="application/vnd.docker.raw-stream")

    async def delete(self, request: web.Request) -> web.Response:
        self.removed += 1
        return web.Response(status=204)


@pytest.fixture
async def served() -> AsyncIterator[list[TestServer]]:
    servers: list[TestServer] = []
    yield servers
    for server in servers:
        await server.close()


async def runtime_of(daemon: Daemon, served: list[TestServer], logs_dir: Path) -> DockerRuntime:
    server = TestServer(daemon.app())
    served.append(server)
    await server.start_server()
    host = f"http://127.0.0.1:{server.port}"
    return DockerRuntime(host, House("us", hub_cache=logs_dir), logs_dir, offline=True, clock=Clock())


HANDLE = Handle(runtime="docker", url="", data={"container": "c1", "model_id": 1, "instance_id": 1})


async def test_a_container_that_is_just_ending_is_stopped_though_signals_are_refused(
    served: list[TestServer], tmp_path: Path
) -> None:
    daemon = Daemon(ends_after=3)
    runtime = await runtime_of(daemon, served, tmp_path)
    await runtime.stop(HANDLE, grace_s=5)
    await runtime.close()
    assert daemon.removed == 1


async def test_a_daemon_that_goes_on_to_refuse_is_told(
    served: list[TestServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostler.runtimes.docker.SIGNAL_PAUSE_S", 0)
    daemon = Daemon(ends_after=10_000)
    runtime = await runtime_of(daemon, served, tmp_path)
    with pytest.raises(DaemonRefused, match="container state improper"):
        await runtime.stop(HANDLE, grace_s=5)
    await runtime.close()
    assert daemon.removed == 0
