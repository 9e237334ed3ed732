"""What engines have in common whose program is found on this host, or comes in an image."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence

from ostler.core.launch import LaunchSpec
from ostler.engines.base import Capabilities, Engine, Executable, LaunchRequest
from ostler.engines.probe import Prober


class ProgramEngine(Engine):
    """`command` is the setting that names the program, `image` the one that names the image."""

    def __init__(self, command: str | None, image: str | None, prober: Prober) -> None:
        self._setting = command
        self.image = image
        self._prober = prober

    async def executable(self, request: LaunchRequest) -> Executable:
        """The program, with the version that it says of itself. Raises NoExecutable."""
        command, source = await asyncio.to_thread(self._command, request)
        return Executable(command, source, (await self.capabilities(command)).version)

    async def capabilities(self, command: Sequence[str]) -> Capabilities:
        """The flags that it knows. Never raises."""
        return await self._prober.probe(tuple(command))

    def _command(self, request: LaunchRequest) -> tuple[tuple[str, ...], str]:
        """The program with its leading arguments, and where it was found. Raises NoExecutable."""
        for text, source in ((request.command_override, "model"), (self._setting, "setting")):
            if text and text.strip():
                return self._configured(text, source), source
        return self._found()

    @abstractmethod
    def _configured(self, text: str, source: str) -> tuple[str, ...]:
        """The program that a person named. Raises NoExecutable."""

    @abstractmethod
    def _found(self) -> tuple[tuple[str, ...], str]:
        """The program where nobody named one, and where it was found. Raises NoExecutable."""

    def _spec(self, request: LaunchRequest) -> LaunchSpec:
        """What is known of a launch before its command line. Raises OwnedOption."""
        self.options.check_extra_args(request.extra_args)
        self.options.check_env(request.env)
        return LaunchSpec(
            model_id=request.model_id,
            model_name=request.model_name,
            engine=self.name,
            runtime=request.runtime,
            secret_env=self.secret_env,
            devices=request.devices,
        )
