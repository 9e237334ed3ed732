"""What is known beside the estimate: the engine's own word, and what earlier runs took.

The latter is written down here when an engine is ready and when it leaves. Both take the place of guesses
when the next start is planned. Nothing here may keep an engine from starting or stopping: what goes wrong
is logged, and the estimate is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ostler.core.errors import OstlerError
from ostler.engines.fit_memory import EngineMemory
from ostler.fit.devices import Device
from ostler.fit.engine_said import estimate_by_engine, need_by_engine
from ostler.fit.estimated import Estimate
from ostler.fit.ledger import Bytes
from ostler.fit.measured import estimate_with, is_settled, need_with
from ostler.fit.need import Need
from ostler.instances.footprints import Footprint, Footprints, footprint_key
from ostler.instances.limits import PROCESS
from ostler.instances.preparing import Preparer
from ostler.models.records import Model
from ostler.models.service import Models

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
HOST = "cpu"
LEAST_SHARE = 0.5
"""A GPU of which less than this of the counted need was seen is one whose driver hides something."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch, as far as it decides how much memory is taken."""

    key: str
    engine: str
    files_bytes: int


@dataclass(slots=True)
class _Watched:
    launch: Launch
    counted: Bytes
    peak: dict[str, int] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    async def kept(self) -> None:
        """Return when what was seen at its start is written down."""
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)


class Experience:
    """Remembers and answers. `devices` gives the devices as seen last, `look` sees everything anew."""

    def __init__(
        self,
        footprints: Footprints,
        models: Models,
        preparer: Preparer,
        devices: Callable[[], Sequence[Device]],
        look: Callable[[], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        self._footprints = footprints
        self._models = models
        self._preparer = preparer
        self._devices = devices
        self._look = look
        self._now = now
        self._looked = now()
        self._watched: dict[int, _Watched] = {}

    # Before a start

    async def launch(self, model: Model, overrides: Mapping[str, Any] | None = None) -> Launch | None:
        """The launch that a start of this model would be; None where that cannot be said or measured.

        Devices that are only described are never mixed with what was measured.
        """
        devices = await self._real_devices()
        if not devices:
            return None
        try:
            prepared = await self._preparer.unchecked(model, overrides)
            files = await self._models.resolve_files(model)
        except OstlerError:
            return None  # the start itself says what is wrong
        key = await asyncio.to_thread(footprint_key, prepared.spec, prepared.engine, files, devices)
        return Launch(key, model.engine, files.size_bytes)

    async def footprint(self, model: Model, overrides: Mapping[str, Any] | None = None) -> Footprint | None:
        """What earlier runs of the same launch took."""
        launch = await self.launch(model, overrides)
        return await self._lookup(launch) if launch else None

    async def better_need(self, need: Need, model: Model, overrides: Mapping[str, Any] | None = None) -> Need:
        """The need with what the engine once said and what is known from earlier runs."""
        said = await self._said(model, overrides, ask=False)
        need = need_by_engine(need, said) if said else need
        found = await self.footprint(model, overrides)
        if found is None or not found.measured:
            return need
        gpus = {device.id for device in self._devices() if device.kind != "cpu"}
        if not need.is_known and gpus and not gpus & found.measured.keys():
            return need  # it ran on the host alone, or its driver does not tell what it held
        return need_with(need, found.measured, replaces=_replaces(found, model, overrides))

    async def better_estimate(
        self, estimate: Estimate, model: Model, overrides: Mapping[str, Any] | None = None, *, ask: bool
    ) -> Estimate:
        """The estimate, on the devices of this host, with what the engine says and earlier runs took.

        With `ask` the engine is asked if it was not before, which takes up to a few seconds.
        """
        said = await self._said(model, overrides, ask=ask)
        estimate = estimate_by_engine(estimate, said) if said else estimate
        found = await self.footprint(model, overrides)
        if found is None or not found.measured:
            return estimate
        return estimate_with(estimate, found.measured, replaces=_replaces(found, model, overrides))

    async def earlier(
        self, model: Model, overrides: Mapping[str, Any] | None = None
    ) -> tuple[Footprint | None, float | None]:
        """What earlier runs of the same launch took, and the seconds that its next load will take.

        These are known by its own last loads, or else by those of others here.
        """
        launch = await self.launch(model, overrides)
        if launch is None:
            return None, None
        found = await self._lookup(launch)
        if found is not None and found.expected_load_s is not None:
            return found, found.expected_load_s
        try:
            return found, await self._footprints.expected_load_s(launch.engine, launch.files_bytes)
        except SQLAlchemyError as error:
            log.warning("how long loads take cannot be read: %s", error)
            return found, None

    async def expected_load_s(self, model: Model, overrides: Mapping[str, Any] | None = None) -> float | None:
        """Seconds that its next load will take."""
        return (await self.earlier(model, overrides))[1]

    async def _real_devices(self) -> Sequence[Device]:
        """The devices as seen last; none where one of them is only described."""
        if not self._devices():
            await self._look()
        devices = self._devices()
        return devices if all(device.is_real for device in devices) else ()

    async def _said(
        self, model: Model, overrides: Mapping[str, Any] | None, *, ask: bool
    ) -> EngineMemory | None:
        """The engine's own word, if it is of the settings that are meant and of what is really here."""
        if not await self._real_devices() or model.runtime != PROCESS:
            return None
        said = await self._preparer.engine_memory(model, overrides, ask=ask)
        if said is None or said.unchanged or is_settled({**model.options, **(overrides or {})}):
            return said
        return None

    async def _lookup(self, launch: Launch) -> Footprint | None:
        try:
            return await self._footprints.lookup(launch.key)
        except SQLAlchemyError as error:
            log.warning("footprints cannot be read: %s", error)
            return None

    # While it runs

    def note_ready(self, instance_id: int, launch: Launch | None, need: Need, load_s: float) -> None:
        """This engine has become ready after so many seconds: what it holds is seen and kept in a while."""
        if launch is None:
            return
        counted = {id: n - need.overhead.get(id, 0) for id, n in need.by_device.items()}
        watched = self._watched[instance_id] = _Watched(launch, counted)
        watched.task = asyncio.create_task(self._keep(watched, load_s=load_s))

    async def note_leaving(self, instance_id: int, *, has_served: bool) -> None:
        """It is about to be stopped: keep the most that it took."""
        if watched := self._watched.get(instance_id):
            await watched.kept()
            await self._keep(watched, has_served=has_served)
            self._watched.pop(instance_id, None)

    def see(self, measured: Mapping[int, Bytes]) -> None:
        """What engines hold now, by instance: peaks of those that are ready grow."""
        for instance_id, watched in self._watched.items():
            for id, n in measured.get(instance_id, {}).items():
                if id == HOST or n >= LEAST_SHARE * watched.counted.get(id, 0):
                    watched.peak[id] = max(n, watched.peak.get(id, 0))

    async def forget(self, instance_id: int) -> None:
        """It is gone, by itself."""
        if watched := self._watched.pop(instance_id, None):
            await watched.kept()

    def lose(self, instance_id: int) -> None:
        """Nobody looks after it any more."""
        self._watched.pop(instance_id, None)

    async def look_again(self) -> None:
        """See what those that run hold, now and then, so that a peak is not missed."""
        now = self._now()
        if self._watched and now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            await self._look()

    async def close(self) -> None:
        """End; the engines go on."""
        await asyncio.gather(*(self.forget(instance_id) for instance_id in list(self._watched)))

    async def _keep(
        self, watched: _Watched, *, load_s: float | None = None, has_served: bool = False
    ) -> None:
        try:
            await self._look()
            await self._footprints.record(
                watched.launch.key,
                watched.peak,
                engine=watched.launch.engine,
                files_bytes=watched.launch.files_bytes,
                load_s=load_s,
                has_served=has_served,
            )
        except (OstlerError, OSError, SQLAlchemyError) as error:
            log.warning("what an engine takes cannot be kept: %s", error)


def _replaces(found: Footprint, model: Model, overrides: Mapping[str, Any] | None) -> bool:
    return found.has_served and is_settled({**model.options, **(overrides or {})})
