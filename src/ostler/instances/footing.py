"""What every step of an instance's life stands on: its record, its place, its requests, who waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.states import InstanceState
from ostler.instances import orders
from ostler.instances.house import House
from ostler.instances.leases import WaitingLine
from ostler.instances.orders import StopOrder
from ostler.instances.standing import SYSTEM_ACTOR, Standing
from ostler.instances.store import Also, Note
from ostler.instances.waiting import Bell, Watch, Watched
from ostler.runtimes.base import Observed

LOOK_IF_IDLE_S = 1.0


class Footing(Standing):
    """Small acts that the steps are made of."""

    def __init__(self, model_id: int, house: House) -> None:
        super().__init__(model_id, house)
        self._bell = Bell()
        self._watch: Watch | None = None
        self._line = WaitingLine()

    def _watched(self) -> Watched:
        record, house = self._must_record(), self._house
        runtime, handle = house.runtime_of(record)
        return Watched(
            runtime, handle, house.engine_of(record), house.probe, house.settings, house.clock.monotonic
        )

    def _idle_at(self) -> float | None:
        timeout_s, endpoint = self.idle_timeout_s(), self.endpoint
        if timeout_s is None or endpoint is None:
            return None
        if self.is_busy:
            return self._now() + max(timeout_s, LOOK_IF_IDLE_S)
        return endpoint.last_used + timeout_s

    def _saw(self, seen: Observed) -> None:
        if seen.is_alive:
            self.observed = seen

    def _is_serving(self) -> bool:
        return self._in_flight() > 0

    def _in_flight(self) -> int:
        """Requests in its engine, those of its guests too."""
        return sum(one.endpoint.in_flight for one in (self, *self.guests) if one.endpoint is not None)

    def _is_asked(self) -> bool:
        return self._stop is not None

    async def _move(self, state: InstanceState, note: Note, **changes: Any) -> None:
        self.record = await self._house.store.move(self._must_record(), state, note, **changes)

    async def _tell(self, kind: str, reason: str, data: Mapping[str, Any], actor: str = SYSTEM_ACTOR) -> None:
        name = self.model.name
        await self._house.store.tell(kind, self.model_id, name, Note(actor, reason, data))

    def _store_desired(self, order: StopOrder) -> Also | None:
        desired, ignored = order.desired, order.ignored
        if desired is None:
            return None

        async def store(session: AsyncSession) -> None:
            await self._house.models.set_desired(self.model_id, desired, session, ignored=ignored)

        return store

    def _withdraw(self) -> None:
        if self.endpoint is not None:
            self._house.routes.withdraw(self.model_id, self.endpoint)
            self._line.wake_all()

    def _released(self) -> None:
        """A request has ended."""
        self._line.wake_one()
        endpoint = self.endpoint
        if endpoint is None or endpoint.in_flight == 0:
            if endpoint is not None and (endpoint.closed or endpoint.keep_alive is not None):
                self._bell.ring()
            if self._house.scheduler.has_waiting:
                self._house.scheduler.poke()

    def _suspect(self) -> None:
        """A request found the engine broken: look at it at once."""
        if self._watch is not None:
            self._watch.suspect()

    def _settle_attempt(self, error: Exception | None = None) -> None:
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.placed.set()
            orders.settle(attempt.done, error)

    def _give_place_back(self) -> None:
        if self.record is None or not self.record.state.is_active:
            self._house.scheduler.release(self.model_id)
