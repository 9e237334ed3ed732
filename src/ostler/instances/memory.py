"""Memory as the scheduler sees it: what was seen last, and the ledger made of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ostler.core.errors import Invalid, OstlerError
from ostler.core.launch import Handle
from ostler.core.settings import Settings
from ostler.fit.allowed import allowed_devices
from ostler.fit.choosing import OPEN_TOGETHER, Choices
from ostler.fit.device import pooled
from ostler.fit.devices import Device, Devices, Sight
from ostler.fit.ledger import Bytes, Claim, Ledger, open_ledger
from ostler.fit.need import Need, need_for
from ostler.fit.processes import gpu_bytes, shared_bytes, strangers
from ostler.fit.reading import Read, Shapes
from ostler.fit.reasons import Choice
from ostler.fit.visible import visible_gpus
from ostler.instances.experience import Experience
from ostler.instances.limits import own_limits, within_limits
from ostler.models.records import Model
from ostler.models.service import Models
from ostler.runtimes.base import Observed, Runtime, RuntimeAway

log = logging.getLogger(__name__)

INSPECT_TIMEOUT_S = 5.0
HERE = ("process", "docker")
"""Runtimes whose engines use the memory of this host."""
LEAST_CONTEXT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that exists, as it can be looked at."""

    instance_id: int
    runtime: Runtime
    handle: Handle


@dataclass(frozen=True, slots=True)
class Moment:
    """What was seen at one moment: the devices, and what each of our engines held, by instance.

    `number` counts the looks by when they began; `others` are bytes by device and foreign program.
    """

    number: int = 0
    devices: Sequence[Device] = ()
    claims: Mapping[int, Claim] = field(default_factory=dict)
    others: Mapping[str, Bytes] = field(default_factory=dict)


Told = Callable[[Model, Mapping[str, Any] | None], dict[str, Any]]
"""Gives the engine options that somebody has set for a model, with options for one launch."""


@dataclass(frozen=True, slots=True)
class _Counting:
    """Counts one model for any options, and chooses what they leave open.

    `trained` is in tokens; `devices` are those on which it may run.
    """

    need: Callable[[Mapping[str, Any]], Need]
    choice: Callable[[Mapping[str, Any]], Choice]
    trained: int | None
    devices: Sequence[Device]


class Memory:
    """Looks at devices and engines, and answers from what it saw last. `engines` gives ours."""

    def __init__(
        self,
        devices: Devices,
        models: Models,
        settings: Callable[[], Settings],
        engines: Callable[[], Iterable[Engine]],
        shapes: Shapes,
        sees_gpus: Callable[[Model], Awaitable[bool | None]],
        told: Told,
        experience: Experience,
    ) -> None:
        self._devices = devices
        self._models = models
        self._settings = settings
        self._engines = engines
        self._shapes = shapes
        self._sees_gpus = sees_gpus
        self._told = told
        self._experience = experience
        self._choices = Choices()
        self._seen = Moment()
        self._looks = itertools.count(1)

    @property
    def devices(self) -> Sequence[Device]:
        """The devices as they were seen last."""
        return self._seen.devices

    async def look(self) -> None:
        """See what is true now: devices first, so that what engines take meanwhile is not called foreign."""
        number, engines = next(self._looks), list(self._engines())
        sight = await self._devices.look()
        observed = await asyncio.gather(*(_inspect(engine) for engine in engines))
        alive = {id: seen for id, seen in observed if seen is not None and seen.is_alive}
        held, others = await asyncio.to_thread(_measure, alive, sight)
        claims = {
            id: Claim({}, pooled(claim.measured, sight.devices), pooled(claim.private, sight.devices))
            for id, claim in held.items()
        }
        if number > self._seen.number:  # a later look may have been quicker
            self._seen = Moment(number, sight.devices, claims, others)
            self._experience.see({id: claim.measured for id, claim in held.items()})

    async def need(
        self, model: Model, overrides: Mapping[str, Any] | None = None, *, read: Read | None = None
    ) -> Need:
        """What a start of this model needs, by earlier runs too. Raises ModelFileGone, BrokenFile.

        `read` is its shape where its files are not here.
        """
        if model.runtime not in HERE:
            return Need()
        counting = await self._counting(model, read)
        need = await asyncio.to_thread(counting.need, self._told(model, overrides))
        if read is None:
            need = await self._experience.better_need(need, model, overrides)
        return need.pooled(counting.devices)

    async def choice(
        self, model: Model, overrides: Mapping[str, Any] | None = None, *, read: Read | None = None
    ) -> Choice:
        """What is chosen for the options that are left open. Raises ModelFileGone, BrokenFile."""
        if model.runtime not in HERE:
            return Choice(unknown_why=f"the hardware of the runtime {model.runtime} is not known here")
        if not self._seen.devices:
            await self.look()
        counting = await self._counting(model, read)
        return await asyncio.to_thread(counting.choice, self._told(model, overrides))

    async def context_that_fits(
        self,
        model: Model,
        overrides: Mapping[str, Any] | None = None,
        *,
        beside: Iterable[Claim] | None = None,
    ) -> int | None:
        """A context length in tokens with which a model that does not fit would; None where none does.

        With `beside` it would fit now beside these, and beside other programs; without, if nothing else ran.
        """
        counting = await self._counting(model)
        options = self._told(model, overrides)
        ledger = self.ledger(beside or ()).within(own_limits(model))
        is_short = ledger.never if beside is None else ledger.short
        chosen = await asyncio.to_thread(counting.choice, options)
        tokens = {**options, **chosen.options}.get("context_length") or counting.trained or 0
        while (tokens := tokens // 2) >= LEAST_CONTEXT_TOKENS:
            need = await asyncio.to_thread(counting.need, {**options, "context_length": tokens})
            if not is_short(need.pooled(counting.devices).by_device):
                return int(tokens)
        return None

    async def better_left_open(
        self, model: Model, overrides: Mapping[str, Any] | None = None
    ) -> tuple[str, ...]:
        """Set options without which it would fit if nothing else ran, as others are chosen then; or none."""
        counting = await self._counting(model)
        told, ledger = self._told(model, overrides), self.ledger(()).within(own_limits(model))
        for names in (*OPEN_TOGETHER, sum(OPEN_TOGETHER, ())):
            given = tuple(name for name in names if name in told)
            rest = {name: value for name, value in told.items() if name not in given}
            need = await asyncio.to_thread(counting.need, rest) if given else Need(unknown_why="")
            if need.is_known and not ledger.never(need.pooled(counting.devices).by_device):
                return given
        return ()

    def claim(self, instance_id: int, need: Bytes) -> Claim:
        """What this instance needs, beside what it was seen to hold."""
        seen = self._seen.claims.get(instance_id, Claim())
        return Claim(need, seen.measured, seen.private)

    def on_gpus(self, instance_id: int) -> int:
        """Bytes that this instance was seen to hold on all GPUs."""
        seen = self._seen.claims.get(instance_id, Claim()).measured
        return sum(n for id, n in seen.items() if id != "cpu")

    def ledger(self, claims: Iterable[Claim]) -> Ledger:
        """The ledger with these claims entered, on the devices as they were seen last."""
        reserve = self._settings().reserve_by_device
        seen = self._seen
        return open_ledger(seen.devices, seen.claims.values(), claims, reserve, seen.others)

    async def _leaves_gpus(self, model: Model) -> bool:
        """True where there are real GPUs and the engine is known to use none: one built for the CPU."""
        if not any(device.kind != "cpu" and device.is_real for device in self._seen.devices):
            return False
        return await self._sees_gpus(model) is False

    async def _counting(self, model: Model, read: Read | None = None) -> _Counting:
        allowed = allowed_devices(self._seen.devices, model.policy.devices)
        devices, reserve = visible_gpus(allowed, model.env), self._settings().reserve_by_device
        note = None
        if await self._leaves_gpus(model):
            devices = [device for device in devices if device.kind == "cpu"]
            note = f"{model.engine} sees no GPU here: the model runs on the CPU"
        trained, roomy = None, within_limits(devices, own_limits(model), reserve)
        if read is None:
            files = await self._models.resolve_files(model)
            trained = files.facts.context_length if files.facts else None
            try:
                read = await self._shapes.of(files)
            except Invalid as error:
                nothing, unknown = Choice(unknown_why=error.message), Need(unknown_why=error.message)
                return _Counting(_noted(lambda _: unknown, note), lambda _: nothing, trained, devices)
        shape, beside = read
        counted = partial(need_for, shape, devices=devices, reserve=reserve, beside=beside)

        def choice(options: Mapping[str, Any]) -> Choice:
            return self._choices.of(model.engine, shape, options, roomy, reserve, beside)

        def need(options: Mapping[str, Any]) -> Need:
            chosen = choice(options).options
            found = counted({**options, **chosen})
            context = chosen.get("context_length", shape.trained_context)
            return replace(found, shortened_to=context) if context < shape.trained_context else found

        return _Counting(_noted(need, note), choice, shape.trained_context, devices)


def _noted(
    counted: Callable[[Mapping[str, Any]], Need], note: str | None
) -> Callable[[Mapping[str, Any]], Need]:
    """The same with a note; options with which nothing can be counted make the need unknown."""

    def need(options: Mapping[str, Any]) -> Need:
        try:
            need = counted(options)
        except Invalid as error:
            return Need(unknown_why=error.message, note=note)
        return replace(need, note=note or need.note)

    return need


async def _inspect(engine: Engine) -> tuple[int, Observed | None]:
    try:
        async with asyncio.timeout(INSPECT_TIMEOUT_S):
            return engine.instance_id, await engine.runtime.inspect(engine.handle)
    except RuntimeAway:
        return engine.instance_id, None  # the runtime says so itself, once
    except (TimeoutError, OSError, OstlerError) as error:
        log.warning("the memory of instance %d cannot be seen: %r", engine.instance_id, error)
        return engine.instance_id, None


def _measure(
    alive: Mapping[int, Observed], sight: Sight
) -> tuple[dict[int, Claim], dict[str, dict[str, int]]]:
    """What each of our engines holds, and what others hold on the GPUs."""
    real = {device.id for device in sight.devices if device.is_real}
    claims = {}
    for instance_id, seen in alive.items():
        measured: dict[str, int] = {}
        private: dict[str, int] = {}
        if seen.memory_bytes is not None and "cpu" in real:
            measured["cpu"] = seen.memory_bytes
            private["cpu"] = max(0, seen.memory_bytes - (shared_bytes(seen.pid) if seen.pid else 0))
        if seen.pid is not None:
            on_gpus = gpu_bytes(seen.pid, sight.processes)
            measured |= on_gpus
            private |= on_gpus
        claims[instance_id] = Claim({}, measured, private)
    pids = [seen.pid for seen in alive.values() if seen.pid is not None]
    return claims, strangers(pids, sight.processes)
