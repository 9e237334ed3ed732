"""Images: what is here is used; what is not is pulled, unless Ostler is offline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ostler.core.sizes import size_text
from ostler.runtimes.base import LaunchFailed, Tell
from ostler.runtimes.docker_client import DockerClient

TELL_EVERY_S = 1.0
SILENCE_S = 300.0
"""A pull that says nothing for so long is given up."""

_OFFLINE = "offline mode is on, so it is not pulled"


class ImageMissing(LaunchFailed):
    """The image of an engine is not here and cannot be fetched."""


class Images:
    """The images of one daemon. One pull per image, whoever asks."""

    def __init__(self, client: DockerClient, *, offline: bool) -> None:
        self._client = client
        self._offline = offline
        self._pulls: dict[str, asyncio.Lock] = {}

    async def is_here(self, image: str) -> bool:
        """True when the daemon has it. Raises RuntimeAway."""
        from aiodocker import DockerError

        try:
            async with self._client.call() as docker:
                await docker.images.inspect(image)
        except DockerError as error:
            if error.status == 404:
                return False
            raise LaunchFailed(f"the image {image} cannot be looked up: {error.message}") from error
        return True

    async def lacks(self, image: str) -> str | None:
        """See `Runtime.lacks`. Raises ImageMissing, RuntimeAway."""
        if await self.is_here(image):
            return None
        if self._offline:
            raise missing(image, _OFFLINE)
        return f"the image {image} is not here and is pulled first"

    async def provide(self, image: str, tell: Tell) -> None:
        """Have it here. Raises ImageMissing, RuntimeAway."""
        async with self._pulls.setdefault(image, asyncio.Lock()):
            if await self.is_here(image):
                return
            if self._offline:
                raise missing(image, _OFFLINE)
            await self._pull(image, tell)

    async def _pull(self, image: str, tell: Tell) -> None:
        from aiodocker import DockerError

        await tell(f"pulling the image {image}")
        layers: dict[str, tuple[int, int]] = {}
        told_at = time.monotonic()
        try:
            async with self._client.call(timeout_s=None) as docker:
                lines = aiter(docker.images.pull(image, stream=True))
                while True:
                    async with asyncio.timeout(SILENCE_S):
                        line = await anext(lines, None)
                    if line is None:
                        break
                    _note(layers, line)
                    if layers and time.monotonic() - told_at >= TELL_EVERY_S:
                        told_at = time.monotonic()
                        await tell(f"pulling the image {image}: {_progress(layers)}")
        except TimeoutError as error:
            raise missing(image, f"the pull said nothing for {SILENCE_S:g} s") from error
        except DockerError as error:
            raise missing(image, f"it cannot be pulled: {error.message}") from error


def missing(image: str, why: str) -> ImageMissing:
    """The error that says which image to bring here, and how."""
    hint = (
        f"On a machine that can reach the registry: docker pull {image} && docker save -o image.tar {image}. "
        "Here: docker load -i image.tar. Or name another image: runtime_options.image of the model."
    )
    return ImageMissing(f"the image {image} is not here: {why}", hint=hint, image=image)


def _note(layers: dict[str, tuple[int, int]], line: Mapping[str, Any]) -> None:
    """One line of the stream: bytes of one layer (`progressDetail` while downloading)."""
    detail = line.get("progressDetail") or {}
    if line.get("status") == "Downloading" and detail.get("total"):
        layers[str(line.get("id"))] = (int(detail.get("current") or 0), int(detail["total"]))
    elif line.get("status") == "Download complete" and str(line.get("id")) in layers:
        total = layers[str(line["id"])][1]
        layers[str(line["id"])] = (total, total)


def _progress(layers: Mapping[str, tuple[int, int]]) -> str:
    done, total = (sum(part) for part in zip(*layers.values(), strict=True))
    return f"{size_text(done)} of {size_text(total)}"
