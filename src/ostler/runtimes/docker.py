"""The docker runtime: an engine is a container of a Docker Engine, or of Podman's compatible service.

A container is ours by a label with this server's identity, so that two Ostlers on one daemon leave each
other's alone; its other labels name model, launch and spec, by which a restarted server finds it. Its
name is the model's, so the daemon itself sees to it that no model runs twice. Nothing here blocks: the
daemon is asked over its socket, and where it does not answer that is said and nothing is concluded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.core.clock import Clock
from ostler.core.launch import Handle, LaunchSpec
from ostler.runtimes import docker_errors
from ostler.runtimes.base import (
    Discovered,
    LaunchFailed,
    LocalImage,
    Observed,
    RuntimeAway,
    RuntimeCheck,
    StopFailed,
    Tell,
)
from ostler.runtimes.container_config import (
    DIGEST_LABEL,
    HOST_NETWORK,
    INSTANCE_LABEL,
    MODEL_LABEL,
    SERVER_LABEL,
    Daemon,
    House,
    create_body,
)
from ostler.runtimes.docker_answers import NAME, handle_of, observed, port_of
from ostler.runtimes.docker_client import DockerClient
from ostler.runtimes.docker_images import Images
from ostler.runtimes.docker_logs import ContainerLogs
from ostler.runtimes.ports import free_port

if TYPE_CHECKING:
    from aiodocker.containers import DockerContainer

log = logging.getLogger(__name__)

CREATE_TIMEOUT_S = 120.0
LIST_TIMEOUT_S = 10.0
"""The server's start waits for this, so a daemon that hangs must not hold it for long."""
KILL_WAIT_S = 30.0
SIGNAL_TRIES = 50
SIGNAL_PAUSE_S = 0.1
"""Podman refuses to signal a container that is between two states; it is asked again."""
AWAY_POLL_S = 1.0
PORT_TRIES = 3
NOBODY = "65534:65534"


class DockerRuntime:
    """Engines as containers of the daemon at `host`; copies of their logs are kept in `logs_dir`."""

    name = NAME

    def __init__(self, host: str, house: House, logs_dir: Path, *, offline: bool, clock: Clock) -> None:
        self._house = house
        self._client = DockerClient(host, clock)
        self._images = Images(self._client, offline=offline)
        self._logs = ContainerLogs(self._client, logs_dir, house.log_bytes)
        self._names: dict[str, asyncio.Lock] = {}
        self._unfinished: dict[int, float] = {}

    @property
    def trouble(self) -> str | None:
        """See `Runtime.trouble`."""
        return self._client.trouble

    async def lacks(self, spec: LaunchSpec) -> str | None:
        """See `Runtime.lacks`."""
        return await self._images.lacks(_image(spec))

    async def image(self, name: str) -> LocalImage | None:
        """See `Runtime.image`."""
        return await self._images.look_up(name)

    async def provide(self, spec: LaunchSpec, tell: Tell) -> None:
        """See `Runtime.provide`: the image is here, or is pulled."""
        await self._images.provide(_image(spec), tell)

    async def launch(self, spec: LaunchSpec, *, instance_id: int, secrets: Mapping[str, str]) -> Handle:
        """See `Runtime.launch`."""
        name = self._house.container_name(spec)
        async with self._names.setdefault(name, asyncio.Lock()):
            await self._make_way(name, spec, instance_id)
            daemon = await self._client.daemon()
            user = await asyncio.to_thread(_default_user, spec, daemon)
            for attempt in range(PORT_TRIES):
                try:
                    return await self._create(name, spec, daemon, user, instance_id, secrets)
                except docker_errors.PortTaken:
                    if attempt == PORT_TRIES - 1:
                        raise
            raise AssertionError("unreachable")

    async def inspect(self, handle: Handle) -> Observed:
        """See `Runtime.inspect`."""
        told = await self._show(handle.data["container"])
        return Observed("gone") if told is None else await asyncio.to_thread(observed, told)

    async def wait_exit(self, handle: Handle) -> Observed:
        """See `Runtime.wait_exit`."""
        while True:
            try:
                await self._until_not_running(handle.data["container"])
                seen = await self.inspect(handle)
                if not seen.is_alive:
                    return seen
            except RuntimeAway:  # not known now: it may live, or have died with the daemon
                await asyncio.sleep(AWAY_POLL_S)

    async def stop(self, handle: Handle, *, grace_s: float) -> None:
        """See `Runtime.stop`."""
        instance_id, container_id = int(handle.data["instance_id"]), handle.data["container"]
        try:
            told = await self._show(container_id)
            if told is not None:
                await self._end(container_id, grace_s)
                await self._remove(container_id, told)
        except RuntimeAway:
            self._unfinished[instance_id] = grace_s
            raise
        self._unfinished.pop(instance_id, None)

    async def logs(self, handle: Handle, *, tail_lines: int | None, follow: bool) -> AsyncIterator[str]:
        """See `Runtime.logs`."""
        data = handle.data
        async for line in self._logs.lines(
            data["container"], data["model_id"], data["instance_id"], tail_lines=tail_lines, follow=follow
        ):
            yield line

    async def discover(self) -> list[Discovered]:
        """See `Runtime.discover`."""
        found = []
        for told in await self._ours():
            labels = told["Labels"]
            handle = handle_of(told["Id"], port_of(told), labels)
            instance_id, model_id = int(labels[INSTANCE_LABEL]), int(labels[MODEL_LABEL])
            found.append(Discovered(handle, model_id, instance_id, labels.get(DIGEST_LABEL, "")))
        return found

    async def check(self) -> RuntimeCheck:
        """See `Runtime.check`."""
        facts: dict[str, Any] = {"docker_host": self._client.host}
        try:
            version, daemon = await self._client.version(), await self._client.daemon()
        except RuntimeAway as error:
            return RuntimeCheck(False, error.message, {**facts, "hint": error.hint})
        facts |= {"version": version.get("Version"), "api_version": version.get("ApiVersion")}
        facts |= {"rootless": daemon.rootless, "gpus": daemon.gpus}
        return RuntimeCheck(True, "", facts)

    async def tidy(self) -> None:
        """See `Runtime.tidy`: what a stop could not finish is ended as soon as the daemon answers again."""
        await self._logs.forget_old()
        if not self._unfinished and self.trouble is None:
            return
        with contextlib.suppress(RuntimeAway):  # the next time, then
            for found in await self.discover():
                grace_s = self._unfinished.get(found.instance_id)
                if grace_s is not None:
                    log.info("ending instance %d, whose stop was cut off", found.instance_id)
                    await self.stop(found.handle, grace_s=grace_s)
            self._unfinished.clear()

    async def close(self) -> None:
        """See `Runtime.close`."""
        await self._client.close()

    # Creating

    async def _create(
        self,
        name: str,
        spec: LaunchSpec,
        daemon: Daemon,
        user: str,
        instance_id: int,
        secrets: Mapping[str, str],
    ) -> Handle:
        from aiodocker import DockerError

        network = self._house.network_of(spec)
        port = free_port((), random.SystemRandom()) if network == HOST_NETWORK else None
        body = create_body(
            spec, self._house, daemon, instance_id=instance_id, user=user, secrets=secrets, host_port=port
        )
        await self._ensure_network(network)
        container: DockerContainer | None = None
        try:
            async with self._client.call(CREATE_TIMEOUT_S) as docker:
                container = await docker.containers.create(body, name=name)
                await container.start()
                told = await container.show()
        except DockerError as error:
            if container is not None:
                await self._delete(container.id)
            raise docker_errors.launch_failed(spec, name, error.status, error.message) from error
        except RuntimeAway:
            self._unfinished[instance_id] = 0.0  # perhaps it was created all the same
            raise
        return handle_of(container.id, port_of(told), body["Labels"])

    async def _make_way(self, name: str, spec: LaunchSpec, instance_id: int) -> None:
        """Take away what an earlier launch of this model left. Raises LaunchFailed where it is not ours."""
        told = await self._show(name)
        if told is None:
            return
        labels = told["Config"].get("Labels") or {}
        if labels.get(SERVER_LABEL) != self._house.server_id:
            raise docker_errors.name_taken(name, spec, labels.get(SERVER_LABEL))
        if labels.get(INSTANCE_LABEL) == str(instance_id) and told["State"].get("Running"):
            raise LaunchFailed(f"instance {instance_id} runs already as container {name}", container=name)
        log.info("removing the container %s, which an earlier launch left", name)
        await self._end(told["Id"], grace_s=0)
        await self._remove(told["Id"], told)

    async def _ensure_network(self, name: str) -> None:
        from aiodocker import DockerError

        if name in (HOST_NETWORK, "bridge", "none"):
            return
        try:
            async with self._client.call() as docker:
                await docker.networks.get(name)
                return
        except DockerError as error:
            if error.status != 404:
                raise LaunchFailed(f"the network {name} cannot be looked up: {error.message}") from error
        try:
            async with self._client.call() as docker:
                await docker.networks.create({"Name": name, "Driver": "bridge", "CheckDuplicate": True})
        except DockerError as error:
            if error.status != 409:  # somebody made it in this moment
                hint = "Make it by hand, or set OSTLER_DOCKER_NETWORK to one that is there (bridge, host)."
                raise LaunchFailed(
                    f"the network {name} cannot be made: {error.message}", hint=hint
                ) from error

    # Looking

    async def _show(self, container: str) -> dict[str, Any] | None:
        """What the daemon says of a container; None where there is none."""
        from aiodocker import DockerError

        try:
            async with self._client.call() as docker:
                return await docker.containers.container(container).show()
        except DockerError as error:
            if error.status == 404:
                return None
            raise docker_errors.unexpected(error.message) from error

    async def _ours(self) -> list[dict[str, Any]]:
        from aiodocker import DockerError

        filters = json.dumps({"label": [f"{SERVER_LABEL}={self._house.server_id}"]})
        try:
            async with self._client.call(LIST_TIMEOUT_S) as docker:
                found = await docker.containers.list(all=1, filters=filters)
        except DockerError as error:
            raise docker_errors.unexpected(error.message) from error
        return [container._container for container in found]

    async def _until_not_running(self, container_id: str) -> None:
        from aiodocker import DockerError

        try:
            async with self._client.call(timeout_s=None) as docker:
                await docker.containers.container(container_id).wait(condition="not-running")
        except DockerError as error:
            if error.status != 404:
                raise docker_errors.unexpected(error.message) from error

    # Ending

    async def _end(self, container_id: str, grace_s: float) -> None:
        await self._signal(container_id, "SIGTERM")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                return await self._until_not_running(container_id)
        await self._signal(container_id, "SIGKILL")
        try:
            async with asyncio.timeout(KILL_WAIT_S):
                await self._until_not_running(container_id)
        except TimeoutError as error:
            raise StopFailed(
                f"container {container_id[:12]} does not end although it was killed",
                hint="It hangs in the kernel, often in a device driver. Look at: dmesg",
                container=container_id,
            ) from error

    async def _signal(self, container_id: str, name: str) -> None:
        from aiodocker import DockerError

        for attempt in range(1, SIGNAL_TRIES + 1):
            try:
                async with self._client.call() as docker:
                    await docker.containers.container(container_id).kill(signal=name)
                return
            except DockerError as error:
                told = await self._show(container_id)  # gone and ended are told in several ways
                if told is None or not observed(told).is_alive:
                    return
                if attempt == SIGNAL_TRIES:
                    raise docker_errors.unexpected(error.message) from error
            await asyncio.sleep(SIGNAL_PAUSE_S)

    async def _remove(self, container_id: str, told: Mapping[str, Any]) -> None:
        """Keep its log, then remove it."""
        labels = told["Config"].get("Labels") or {}
        if labels.get(SERVER_LABEL) != self._house.server_id:
            raise docker_errors.not_ours(container_id)
        await self._logs.keep(container_id, int(labels[MODEL_LABEL]), int(labels[INSTANCE_LABEL]))
        await self._delete(container_id)

    async def _delete(self, container_id: str) -> None:
        from aiodocker import DockerError

        try:
            async with self._client.call(CREATE_TIMEOUT_S) as docker:
                await docker.containers.container(container_id).delete(force=True, v=True)
        except DockerError as error:
            if error.status not in (404, 409):  # gone, or going
                raise docker_errors.unexpected(error.message) from error


def _image(spec: LaunchSpec) -> str:
    if not spec.image:
        raise LaunchFailed(
            f"{spec.model_name} has no image to run", hint="Name one: runtime_options.image of the model."
        )
    return spec.image


def _default_user(spec: LaunchSpec, daemon: Daemon) -> str:
    """Whom an engine runs as: never root of this machine, unless only root can read the files.

    Under a rootless daemon root inside is the daemon's own unprivileged user outside.
    """
    if daemon.rootless:
        return "0:0"
    if os.getuid() != 0:
        return f"{os.getuid()}:{os.getgid()}"
    return NOBODY if all(_all_can_read(Path(mount.source)) for mount in spec.mounts) else "0:0"


def _all_can_read(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
        inside = [path / name for name in os.listdir(path)] if stat.S_ISDIR(mode) else []  # noqa: PTH208
    except OSError:
        return False
    needed = stat.S_IROTH | stat.S_IXOTH if inside or stat.S_ISDIR(mode) else stat.S_IROTH
    return mode & needed == needed and all(_all_can_read(one) for one in inside)
