"""From a recipe to what exactly will run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ostler.core.errors import NotFound, OstlerError
from ostler.core.findings import Category, Finding, Severity
from ostler.core.launch import HIDDEN, HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.core.near import near_names
from ostler.engines.base import Engine, LaunchRequest
from ostler.engines.fit_memory import EngineMemory
from ostler.engines.registry import Engines
from ostler.fit.devices import Device
from ostler.fit.reasons import Choice
from ostler.instances.looking_ahead import UNKNOWN_FLAG, Scene, look_ahead, of_error, refuse
from ostler.instances.views import DryRun
from ostler.library.filesets import FileSet
from ostler.models.records import HUB_TOKEN, Model
from ostler.models.service import Models
from ostler.runtimes.base import Runtime, RuntimeCheck

SHOWN_HOST, SHOWN_PORT = "127.0.0.1", "PORT"


class UnknownRuntime(NotFound):
    """This server does not have the runtime that the model asks for."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A start that is ready to be carried out."""

    spec: LaunchSpec
    engine: Engine
    runtime: Runtime


Choose = Callable[[Model, Mapping[str, Any] | None], Awaitable[Choice]]
"""Chooses what a recipe, with options for one launch, leaves open."""


class Preparer:
    """Turns models into launch specs. `choose` fills in what is left open, `devices` are those seen last."""

    def __init__(
        self,
        models: Models,
        engines: Engines,
        runtimes: Mapping[str, Runtime],
        choose: Choose,
        devices: Callable[[], Sequence[Device]],
    ) -> None:
        self._models = models
        self._engines = engines
        self._runtimes = runtimes
        self._choose = choose
        self._devices = devices

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
            files = await self._models.resolve_files(model)
            return await self._engines.get(model.engine).sees_gpus(_request(model, files, {}))
        except OstlerError:
            return None  # the start itself says what is wrong

    async def engine_memory(
        self, model: Model, overrides: Mapping[str, Any] | None, *, ask: bool
    ) -> EngineMemory | None:
        """What its engine says that it would allocate; without `ask` only what it said before."""
        try:
            request, _ = await self._scene(model, overrides)
            return await self._engines.get(model.engine).memory(request, ask=ask)
        except OstlerError:
            return None  # the start itself says what is wrong

    def told(self, model: Model, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The engine options that somebody has set: in the recipe, for this launch, or in its arguments."""
        rules = self._engines.get(model.engine).options
        return rules.told(self._options(model, overrides), model.extra_args, model.env)

    async def prepare(self, model: Model, overrides: Mapping[str, Any] | None = None) -> Prepared:
        """What a start of this model would run, with options for this launch only.

        Errors that are to be ignored do not matter. Raises StartBlocked, ModelFileGone, BrokenFile,
        UnknownOption, BadOptionValue, NoExecutable, UnknownFlag.
        """
        engine = self._engines.get(model.engine)
        request, scene = await self._scene(model, overrides)
        refuse(model.name, look_ahead(scene), model.ignored)
        asks = bool(model.extra_args) or engine.options_vary
        if asks and UNKNOWN_FLAG not in model.ignored:  # asked of the executable itself before it is launched
            await engine.check(request)
        return await self._prepared(model, request)

    async def unchecked(self, model: Model, overrides: Mapping[str, Any] | None = None) -> Prepared:
        """The same where it does not matter whether a start would be refused."""
        request, _ = await self._scene(model, overrides)
        return await self._prepared(model, request)

    async def dry_run(self, model: Model, overrides: Mapping[str, Any] | None = None) -> DryRun:
        """The same without doing it: all that can be known before."""
        found: list[Finding] = []
        run = DryRun(model.name, model.engine, model.runtime)
        try:
            engine, runtime = self._engines.get(model.engine), self.runtime(model.runtime)
            check = await runtime.check()
            if not check.ok:
                found.append(_unavailable(model.runtime, check))
            request, scene = await self._scene(model, overrides)
            found += look_ahead(scene)
            run = replace(run, chosen=tuple(scene.chosen.to_json()))
            spec = await asyncio.to_thread(engine.launch_spec, request)
            run = with_spec(run, spec)
            if check.ok and (lack := await runtime.lacks(spec)) is not None:
                found.append(_to_fetch(lack))
            found += [_unchecked(text) for text in await engine.check(request)]
        except OstlerError as error:
            found.append(of_error(error))
        return replace(run, findings=tuple(found))

    async def _prepared(self, model: Model, request: LaunchRequest) -> Prepared:
        engine, runtime = self._engines.get(model.engine), self.runtime(model.runtime)
        return Prepared(await asyncio.to_thread(engine.launch_spec, request), engine, runtime)

    async def _scene(self, model: Model, overrides: Mapping[str, Any] | None) -> tuple[LaunchRequest, Scene]:
        engine = self._engines.get(model.engine)
        files = await self._models.resolve_files(model)
        options = self._options(model, overrides)
        request = _request(model, files, options)
        chosen = await _known(engine, request, await self._choose(model, overrides))
        request = replace(request, options={**options, **chosen.options})
        together = {**self.told(model, overrides), **chosen.options}
        cores = os.cpu_count() or 1
        allowed = model.policy.devices
        devices = [device for device in self._devices() if not allowed or device.id in allowed]
        return request, Scene(engine, files, together, chosen, devices, cores, model.extra_args)

    def _options(self, model: Model, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
        """By their own names: an override wins also where it goes by an alias."""
        rules = self._engines.get(model.engine).options
        return {**rules.validate(model.options), **rules.validate(overrides or {})}


def _request(model: Model, files: FileSet, options: Mapping[str, Any]) -> LaunchRequest:
    return LaunchRequest(
        model_id=model.id,
        model_name=model.name,
        model_path=files.path,
        mmproj_path=files.mmproj,
        options=options,
        extra_args=model.extra_args,
        env={name: value for name, value in model.env.items() if name != HUB_TOKEN},
        runtime=model.runtime,
        command_override=model.engine_command,
        devices=model.policy.devices,
        runtime_options=dict(model.runtime_options),
    )


async def _known(engine: Engine, request: LaunchRequest, chosen: Choice) -> Choice:
    """The choice as this program can take it: an old one knows nothing of fitting, or of some option."""
    if chosen.options.keys() <= {"context_length"}:  # every build has it: no need to ask
        return chosen
    if "fit" in chosen.options and not await engine.knows(request, "fit"):
        chosen = chosen.without("fit")
    for name in chosen.options:
        if await engine.knows(request, name) is False:
            return Choice(unknown_why=f"the engine's program does not know the option {name}")
    return chosen


def _to_fetch(text: str) -> Finding:
    return Finding("to_fetch", Severity.INFO, Category.CONFIG, "Something is fetched first", text)


def _unavailable(runtime: str, check: RuntimeCheck) -> Finding:
    fix = str(
        check.facts.get("hint")
        or f"See what is missing with: ostler doctor, or use another runtime than {runtime}."
    )
    title, message = "The runtime cannot be used", f"{runtime}: {check.reason}"
    return Finding(
        "runtime_unavailable", Severity.ERROR, Category.CONFIG, title, message, fix=fix, field="runtime"
    )


def _unchecked(text: str) -> Finding:
    return Finding("flags_not_checked", Severity.WARNING, Category.ARGS, "Flags were not checked", text)


def with_spec(run: DryRun, spec: LaunchSpec) -> DryRun:
    """The dry run with what exactly would run."""
    return replace(
        run,
        argv=tuple(_shown(part) for part in (*spec.command, *spec.args)),
        env={**spec.env, **dict.fromkeys(spec.secret_env, HIDDEN)},
        spec=spec.to_json(),
        spec_digest=spec.digest(),
    )


def _shown(part: str) -> str:
    return part.replace(HOST_SLOT, SHOWN_HOST).replace(PORT_SLOT, SHOWN_PORT)
