"""From a recipe to what exactly will run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ostler.core.errors import NotFound, OstlerError
from ostler.core.launch import HIDDEN, HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.core.near import near_names
from ostler.engines.base import Engine, LaunchRequest
from ostler.engines.fit_memory import EngineMemory
from ostler.engines.registry import Engines
from ostler.instances.views import DryRun
from ostler.models.records import Model
from ostler.models.service import Models
from ostler.runtimes.base import Runtime

SHOWN_HOST, SHOWN_PORT = "127.0.0.1", "PORT"


class UnknownRuntime(NotFound):
    """This server does not have the runtime that the model asks for."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A start that is ready to be carried out."""

    spec: LaunchSpec
    engine: Engine
    runtime: Runtime


class Preparer:
    """Turns models into launch specs."""

    def __init__(self, models: Models, engines: Engines, runtimes: Mapping[str, Runtime]) -> None:
        self._models = models
        self._engines = engines
        self._runtimes = runtimes

    def runtime(self, name: str) -> Runtime:
        """The runtime of that name. Raises UnknownRuntime."""
        if found := self._runtimes.get(name):
            return found
        near = near_names(name, self._runtimes)
        known = near or sorted(self._runtimes)
        raise UnknownRuntime(
            f"this server has no runtime {name!r}", hint=f"It has: {', '.join(known)}.", runtime=name
        )

    def engine(self, name: str) -> Engine:
        """The engine of that name. Raises UnknownEngine."""
        return self._engines.get(name)

    async def sees_gpus(self, model: Model) -> bool | None:
        """Whether its engine would use this host's GPUs; None where that is not known."""
        try:
            return await self._engines.get(model.engine).sees_gpus(await self._request(model, None))
        except OstlerError:
            return None  # the start itself says what is wrong

    async def engine_memory(
        self, model: Model, overrides: Mapping[str, Any] | None, *, ask: bool
    ) -> EngineMemory | None:
        """What its engine says that it would allocate; without `ask` only what it said before."""
        try:
            request = await self._request(model, overrides)
            return await self._engines.get(model.engine).memory(request, ask=ask)
        except OstlerError:
            return None  # the start itself says what is wrong

    async def prepare(self, model: Model, overrides: Mapping[str, Any] | None = None) -> Prepared:
        """What a start of this model would run, with options for this launch only.

        Raises ModelFileGone, BrokenFile, UnknownOption, BadOptionValue, NoExecutable, UnknownFlag.
        """
        engine, runtime = self._engines.get(model.engine), self.runtime(model.runtime)
        request = await self._request(model, overrides)
        if model.extra_args:  # free text: asked of the executable itself before it is launched
            await engine.check(request)
        return Prepared(await asyncio.to_thread(engine.launch_spec, request), engine, runtime)

    async def dry_run(self, model: Model, overrides: Mapping[str, Any] | None = None) -> DryRun:
        """The same without doing it: every warning and error that can be known before."""
        errors: list[str] = []
        warnings: list[str] = []
        spec = None
        try:
            engine, runtime = self._engines.get(model.engine), self.runtime(model.runtime)
            check = await runtime.check()
            if not check.ok:
                errors.append(check.reason)
            request = await self._request(model, overrides)
            spec = await asyncio.to_thread(engine.launch_spec, request)
            warnings += await engine.check(request)
            if check.ok and (lack := await runtime.lacks(spec)) is not None:
                warnings.append(lack)
        except OstlerError as error:
            errors.append(f"{error.message}. {error.hint}" if error.hint else error.message)
        run = DryRun(model.name, model.engine, model.runtime, warnings=tuple(warnings), errors=tuple(errors))
        if spec is None:
            return run
        return replace(
            run,
            argv=tuple(_shown(part) for part in (*spec.command, *spec.args)),
            env={**spec.env, **dict.fromkeys(spec.secret_env, HIDDEN)},
            spec=spec.to_json(),
            spec_digest=spec.digest(),
        )

    async def _request(self, model: Model, overrides: Mapping[str, Any] | None) -> LaunchRequest:
        files = await self._models.resolve_files(model)
        wishes = dict(model.runtime_options)
        return LaunchRequest(
            devices=tuple(wishes.pop("devices", None) or ()),
            runtime_options=wishes,
            model_id=model.id,
            model_name=model.name,
            model_path=files.path,
            mmproj_path=files.mmproj,
            options={**model.options, **(overrides or {})},
            extra_args=model.extra_args,
            env=model.env,
            runtime=model.runtime,
            command_override=model.engine_command,
        )


def _shown(part: str) -> str:
    return part.replace(HOST_SLOT, SHOWN_HOST).replace(PORT_SLOT, SHOWN_PORT)
