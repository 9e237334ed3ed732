"""The engines that this Ostler knows, by name and by format."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ostler.core.near import near_names
from ostler.engines.base import Engine, LaunchRequest, NoExecutable, UnknownEngine
from ostler.engines.command_line import program_named
from ostler.engines.listed_devices import ListedDevice
from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.vllm import Vllm

if TYPE_CHECKING:
    from ostler.core.settings import Settings

log = logging.getLogger(__name__)


class Engines:
    """A handful of engines, by name."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        self._engines = {engine.name: engine for engine in engines}

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())

    def names(self) -> list[str]:
        """Every engine's name."""
        return list(self._engines)

    def get(self, name: str) -> Engine:
        """The engine of that name. Raises UnknownEngine (with near names)."""
        if engine := self._engines.get(name):
            return engine
        near = near_names(name.replace(".", "").replace("-", ""), self._engines)
        raise UnknownEngine(
            f"there is no engine {name!r}",
            hint=f"Did you mean {near[0]}?" if near else f"Known engines: {', '.join(self._engines)}",
            engine=name,
            near=near,
        )

    def for_format(self, file_format: str) -> Engine:
        """The first engine that serves files of that format. Raises UnknownEngine."""
        for engine in self:
            if file_format in engine.formats:
                return engine
        raise UnknownEngine(
            f"no engine here serves {file_format} files",
            hint=f"Formats that can be served: {', '.join(sorted(f for e in self for f in e.formats))}",
            format=file_format,
        )

    async def listed_devices(self) -> tuple[ListedDevice, ...]:
        """The GPUs that the engines of the settings name now; none where no program says any."""
        for engine in self:
            try:
                found = await engine.devices(LaunchRequest(0, "devices", Path("model")), fresh=True)
            except NoExecutable as error:
                log.debug("%s cannot be asked for its devices: %s", engine.name, error)
                continue
            if found:
                return found
        return ()

    def for_command(self, command: str) -> Engine:
        """The engine whose program a pasted command line names; the first one where it names none."""
        named = program_named(command)
        return next((engine for engine in self if named in engine.programs), next(iter(self)))


ENGINES: tuple[type[Engine], ...] = (LlamaCpp, Vllm)
"""Every engine's class, for what needs no settings: its options and their documentation."""


def default_engines(settings: Settings) -> Engines:
    """Every engine, as the settings say."""
    llamacpp = LlamaCpp(settings.llama_server_command, settings.llamacpp_image)
    return Engines([llamacpp, Vllm(settings.vllm_command, settings.vllm_image)])
