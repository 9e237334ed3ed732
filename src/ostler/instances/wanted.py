"""The models that should run: started with the server, and again when there is room for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ostler.core.states import DesiredState
from ostler.instances import admission
from ostler.instances.house import House
from ostler.instances.keeper import Keeper
from ostler.instances.views import StartCause
from ostler.models.records import Model

LOOK_FOR_ROOM_S = 5.0


class Wanted:
    """Brings up what should run, the highest priority first, and pushes nobody out for it."""

    def __init__(self, house: House, keeper_of: Callable[[int], Keeper]) -> None:
        self._house = house
        self._keeper_of = keeper_of

    async def start_all(self) -> None:
        """Begin to start them, one after the other has its place or none."""
        for model in self._missing():
            await self._start(model)

    async def start_refused(self) -> None:
        """Watch for room for those that were refused, and for their files; ends by being cancelled."""
        settings = self._house.settings
        while True:
            await asyncio.sleep(min(LOOK_FOR_ROOM_S, settings().probe_interval_s))
            for model in self._missing():
                was_refused = self._keeper_of(model.id).waits_for is not None
                if was_refused and await admission.has_room(self._house, model):
                    await self._start(model)

    def _missing(self) -> list[Model]:
        wanted = [model for model in self._house.models.all() if self._should_start(model)]
        return sorted(wanted, key=lambda m: (-m.policy.priority, m.name))

    def _should_start(self, model: Model) -> bool:
        should_run = model.desired_state is DesiredState.RUNNING or model.policy.auto_start
        return should_run and not model.archived and not self._keeper_of(model.id).state.is_active

    async def _start(self, model: Model) -> None:
        is_kept = model.desired_state is DesiredState.RUNNING
        cause = StartCause.PERSON if is_kept else StartCause.AUTO
        await self._keeper_of(model.id).start_with_server(cause)
