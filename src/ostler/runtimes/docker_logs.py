"""Logs of containers: from the daemon while the container is there, from our own copy afterwards.

The daemon deletes a container's log with the container, so the log is copied before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from ostler.runtimes.base import RuntimeAway
from ostler.runtimes.docker_client import DockerClient
from ostler.runtimes.logfile import LOGS_KEPT, LineCutter, LogFile, log_path, old_logs

if TYPE_CHECKING:
    from aiodocker.containers import DockerContainer

log = logging.getLogger(__name__)

COPY_TIMEOUT_S = 60.0
LONG_LINES = 500
"""Asked for beyond a tail: the daemon counts each 16 KiB of a longer line as a line."""


class ContainerLogs:
    """Copies live in `folder`, each the last `log_bytes` bytes of what the engine wrote."""

    def __init__(self, client: DockerClient, folder: Path, log_bytes: int) -> None:
        self._client = client
        self._folder = folder
        self._log_bytes = log_bytes

    async def keep(self, container_id: str, model_id: int, instance_id: int) -> None:
        """Copy the log of a container that is about to be removed; what cannot be copied is said."""
        from aiodocker import DockerError

        kept: deque[bytes] = deque()
        size = 0
        try:
            async with asyncio.timeout(COPY_TIMEOUT_S):
                async for chunk in self._chunks(container_id, tail_lines=None, follow=False):
                    kept.append(chunk)
                    size += len(chunk)
                    while size - len(kept[0]) > self._log_bytes:
                        size -= len(kept.popleft())
            await asyncio.to_thread(self._write, model_id, instance_id, list(kept))
        except (DockerError, OSError, TimeoutError) as error:
            log.warning("the log of instance %d of model %d is lost: %r", instance_id, model_id, error)

    async def lines(
        self,
        container_id: str,
        model_id: int,
        instance_id: int,
        *,
        tail_lines: int | None,
        follow: bool,
    ) -> AsyncIterator[str]:
        """The lines of one launch, see `Runtime.logs`. That the daemon is away is a line of its own."""
        from aiodocker import DockerError

        cutter = LineCutter()
        copy = LogFile(log_path(self._folder, model_id, instance_id))
        if copy.path.exists():
            chunks = _file_chunks(copy, tail_lines)
        else:
            chunks = self._chunks(container_id, tail_lines=tail_lines, follow=follow)
        try:
            async for chunk in chunks:
                for line in cutter.feed(chunk):
                    yield line
        except DockerError as error:
            if error.status != 404:
                log.warning("the log of container %s ends early: %s", container_id, error.message)
        except RuntimeAway as error:
            yield f"[ostler] {error.message}"
        for line in cutter.finish():
            yield line

    async def forget_old(self) -> None:
        """Delete the copies beyond the newest few of each model."""
        for path in await asyncio.to_thread(old_logs, self._folder, LOGS_KEPT):
            await asyncio.to_thread(LogFile(path).delete)

    async def _chunks(
        self, container_id: str, *, tail_lines: int | None, follow: bool
    ) -> AsyncIterator[bytes]:
        async with self._client.call(timeout_s=None) as docker:
            container: DockerContainer = docker.containers.container(container_id)
            if not follow:
                tail = "all" if tail_lines is None else str(tail_lines + LONG_LINES)
                written = await container.log(stdout=True, stderr=True, tail=tail)
                yield last_lines("".join(written).encode(), tail_lines)
                return
            tail = "all" if tail_lines is None else str(tail_lines)
            async for text in container.log(stdout=True, stderr=True, follow=True, tail=tail):
                yield text.encode()

    def _write(self, model_id: int, instance_id: int, chunks: list[bytes]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        LogFile(log_path(self._folder, model_id, instance_id)).replace(chunks)


def last_lines(data: bytes, lines: int | None) -> bytes:
    """The last lines of a log (None: all of it)."""
    if lines is None:
        return data
    end = len(data) - data.endswith(b"\n")
    start = end
    for _ in range(lines):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return data
    return data[start + 1 :] if lines else b""


async def _file_chunks(copy: LogFile, tail_lines: int | None) -> AsyncIterator[bytes]:
    position = await asyncio.to_thread(copy.tail, tail_lines)
    while True:
        data, position = await asyncio.to_thread(copy.read, position)
        if not data:
            return
        yield data
