"""The way to a Docker Engine, or to Podman's compatible service: where it is, whether it answers.

Every call goes through `DockerClient.call`, which tells three things apart: the daemon said no
(`DockerError` of the library, with its status), it did not answer (RuntimeAway), and all is well.
The library is imported with the first call, so that nobody who has no containers waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.core.clock import Clock
from ostler.runtimes.base import RuntimeAway
from ostler.runtimes.container_config import Daemon

if TYPE_CHECKING:
    from aiodocker import Docker

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0
RETRY_AFTER_S = 5.0
_NOT_CONNECTED = 900
"""The status that aiodocker gives where no connection came about."""


def find_host(setting: str | None, environment: Mapping[str, str]) -> str:
    """Where the daemon listens: as set, else the first of the usual sockets that is there."""
    if setting:
        return setting
    own = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    usual = ("/run/docker.sock", "/var/run/docker.sock", f"{own}/docker.sock")
    podman = (f"{own}/podman/podman.sock", "/run/podman/podman.sock")
    for path in (*usual, *podman):
        if Path(path).is_socket():
            return f"unix://{path}"
    return "unix:///var/run/docker.sock"


class DockerClient:
    """One connection to a daemon. `trouble` says since when it does not answer."""

    def __init__(self, host: str, clock: Clock) -> None:
        self.host = host
        self.trouble: str | None = None
        self._clock = clock
        self._away_since: datetime | None = None
        self._was_there = False
        self._docker: Docker | None = None
        self._daemon: Daemon | None = None

    @asynccontextmanager
    async def call(self, timeout_s: float | None = CALL_TIMEOUT_S) -> AsyncIterator[Docker]:
        """The daemon, for one call. Raises RuntimeAway, and lets its own errors through."""
        if (silent := self._no_socket()) is not None:
            raise self._away(silent)
        import aiohttp
        from aiodocker import Docker, DockerError

        if self._docker is None:
            try:
                self._docker = Docker(url=self.host)
            except ValueError as error:
                raise self._away(str(error)) from error
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                yield self._docker
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._away(f"no answer within {timeout_s:g} s") from error
        except DockerError as error:
            if error.status == _NOT_CONNECTED:
                raise self._away(error.message.rpartition("[")[2].rstrip("]")) from error
            self._is_back()
            raise
        except (
            aiohttp.ClientError,
            OSError,
            EOFError,
            json.JSONDecodeError,
        ) as error:  # cut off in the middle of an answer
            raise self._away(str(error) or type(error).__name__) from error
        self._is_back()

    async def daemon(self) -> Daemon:
        """What kind of daemon it is; asked once for as long as it answers. Raises RuntimeAway."""
        if self._daemon is None:
            self._daemon = daemon_of(await self.info())
        return self._daemon

    async def info(self) -> dict[str, Any]:
        """The daemon's own account of itself (`GET /info`). Raises RuntimeAway."""
        async with self.call() as docker:
            return dict(await docker.system.info())

    async def version(self) -> dict[str, Any]:
        """Its version (`GET /version`). Raises RuntimeAway."""
        async with self.call() as docker:
            return await docker.version()

    async def close(self) -> None:
        """End the connections."""
        docker, self._docker = self._docker, None
        if docker is not None:
            await docker.close()

    def _no_socket(self) -> str | None:
        path = Path(self.host.removeprefix("unix://"))
        if not self.host.startswith("unix://") or path.is_socket():
            return None
        return "there is no such socket"

    def _away(self, why: str) -> RuntimeAway:
        if self._away_since is None:
            self._away_since = self._clock.now()
            level = logging.WARNING if self._was_there else logging.DEBUG  # most machines have none
            log.log(level, "the Docker daemon at %s does not answer: %s", self.host, why)
        self._daemon = None  # another may come back in its place
        since = self._away_since.strftime("%Y-%m-%d %H:%M:%S UTC")
        self.trouble = f"the Docker daemon at {self.host} does not answer since {since} ({why})"
        hint = "Start it (systemctl start docker), or name another with DOCKER_HOST."
        if "ermission" in why:
            hint = "Let this user use it: sudo usermod -aG docker $USER, then log in anew."
        return RuntimeAway(self.trouble, hint=hint, retry_after_s=RETRY_AFTER_S, docker_host=self.host)

    def _is_back(self) -> None:
        if self._away_since is not None and self._was_there:
            log.info("the Docker daemon at %s answers again", self.host)
        self._away_since, self.trouble, self._was_there = None, None, True


def daemon_of(info: Mapping[str, Any]) -> Daemon:
    """What `GET /info` says of it."""
    security = [str(option) for option in info.get("SecurityOptions") or ()]
    runtimes = info.get("Runtimes") or {}
    is_local_rocm = Path("/dev/kfd").exists() and Path("/dev/dri").exists()
    return Daemon(
        rootless=any("name=rootless" in option for option in security),
        selinux=any("name=selinux" in option for option in security),
        gpus="nvidia" if "nvidia" in runtimes else "rocm" if is_local_rocm else "none",
    )
