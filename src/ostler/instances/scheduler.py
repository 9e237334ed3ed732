"""The queue of starts: it asks for a plan, lets others leave, and hands out places in order.

The line is kept by priority with ageing: who waits long enough comes before a later one of higher
priority, and batch work before interactive work that came much later. The first in line is never
overtaken, so whoever waits gets its turn.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Protocol

from ostler.core.clock import Clock
from ostler.core.errors import OstlerError
from ostler.core.settings import Settings
from ostler.fit.ledger import Claim
from ostler.instances.errors import NoRoom, WillNotFit
from ostler.instances.plan import Candidate, Plan, Resident, Seat, Verdict

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5.0
AGEING_S = 30.0
"""Waiting so long counts as one step of priority."""
BATCH_BEHIND = 10
"""So many steps a start for batch work stands behind an interactive one: five minutes of waiting."""
LOOK_EVERY_S = 0.25
"""How often memory is looked at while somebody waits."""


class Room(Protocol):
    """Where there is room or none. Everything but `look` is immediate."""

    async def look(self) -> None:
        """See anew what the devices and the engines hold."""

    def residents(self) -> Sequence[Resident]:
        """The models that hold a place."""

    def plan(self, candidate: Candidate, residents: Sequence[Resident]) -> Plan:
        """May it start, and who leaves for it?"""

    def evict(self, model_id: int, for_name: str) -> bool:
        """Begin to stop one, if it is still idle."""

    def finish(self, model_id: int, for_name: str) -> bool:
        """Let one that is busy end what it serves and leave."""


@dataclass
class _Ticket:
    candidate: Candidate
    order: int
    since_s: float
    granted: asyncio.Future[Seat]
    plan: Plan = field(default_factory=lambda: Plan(Verdict.WAIT))

    @property
    def rank(self) -> float:
        """The lowest comes first. It does not change while it waits, so no later one can pass for ever."""
        behind = BATCH_BEHIND if self.candidate.is_batch else 0
        return self.since_s / AGEING_S - self.candidate.priority + behind


class Scheduler:
    """Places for running models."""

    def __init__(self, room: Room, clock: Clock, settings: Callable[[], Settings]) -> None:
        self._room = room
        self._clock = clock
        self._settings = settings
        self._waiting: list[_Ticket] = []
        self._granted: dict[int, Candidate] = {}
        self._numbers = itertools.count()
        self._rung = asyncio.Event()
        self._attending: asyncio.Task[None] | None = None
        self._is_stale = True
        self._looked_at = self._released_at = float("-inf")

    @property
    def has_waiting(self) -> bool:
        """True while a start waits for a place."""
        return bool(self._waiting)

    async def admit(self, candidate: Candidate, *, timeout_s: float) -> Seat:
        """Where it is placed, once it has a place; it keeps it until `release`. Raises NoRoom, WillNotFit."""
        granted: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        ticket = _Ticket(candidate, next(self._numbers), self._clock.monotonic(), granted)
        self._waiting.append(ticket)
        self._in_order()
        self._is_stale = True
        try:
            self.poke()
            async with asyncio.timeout(timeout_s):
                return await granted
        except TimeoutError:
            raise _refusal(ticket.candidate, ticket.plan) from None
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(candidate.model_id)
            raise
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self.poke()

    def change(self, candidate: Candidate) -> None:
        """What a start that waits asks for has changed; it keeps the time that it has waited."""
        for ticket in self._waiting:
            if ticket.candidate.model_id == candidate.model_id and ticket.candidate != candidate:
                ticket.candidate = candidate
                self._in_order()
                self.poke()
                return

    def release(self, model_id: int) -> None:
        """The model does not hold its place any more."""
        if self._granted.pop(model_id, None) is not None or self._waiting:
            self._released_at = self._clock.monotonic()
        self._is_stale = True
        self.poke()

    async def preview(self, candidate: Candidate) -> Plan:
        """What `admit` would decide now, if the model did not hold a place itself."""
        await self._look()
        others = [holder for holder in self.holders() if holder.model_id != candidate.model_id]
        return self._room.plan(candidate, others)

    def poke(self) -> None:
        """Something changed: decide again."""
        if self._waiting:
            self._rung.set()
            if self._attending is None:
                self._attending = asyncio.create_task(self._attend(), name="scheduler")

    async def close(self) -> None:
        """End deciding; who waits is told by its keeper."""
        if self._attending is not None:
            self._attending.cancel()
            await asyncio.gather(self._attending, return_exceptions=True)

    def holders(self) -> list[Resident]:
        """Who holds a place: residents, and starts that have one but are not resident yet."""
        residents = list(self._room.residents())
        known = {resident.model_id for resident in residents}
        now = self._clock.monotonic()
        return residents + [
            Resident(
                c.model_id,
                c.model_name,
                False,
                True,
                True,
                now,
                c.priority,
                Claim(c.need or {}),
                group=c.group,
            )
            for c in self._granted.values()
            if c.model_id not in known
        ]

    async def _attend(self) -> None:
        """Look and decide for as long as somebody waits."""
        try:
            while self._waiting:
                self._rung.clear()
                if self._is_stale or self._clock.monotonic() - self._looked_at >= LOOK_EVERY_S:
                    await self._look()
                if self._is_stale:  # somebody left meanwhile: what was seen is not true any more
                    continue
                self._decide()
                if self._waiting:
                    await _heard(self._rung, LOOK_EVERY_S)
        except Exception as error:
            log.exception("the scheduler failed")
            for ticket in self._waiting:
                _settle(ticket.granted, error)
            self._waiting.clear()
        finally:
            self._attending = None

    def _in_order(self) -> None:
        self._waiting.sort(key=lambda ticket: (ticket.rank, ticket.order))

    async def _look(self) -> None:
        self._is_stale = False
        await self._room.look()
        self._looked_at = self._clock.monotonic()

    def _decide(self) -> None:
        """Serve the line from its head until one has to wait."""
        while self._waiting:
            ticket = self._waiting[0]
            ticket.plan = plan = self._room.plan(ticket.candidate, self.holders())
            name = ticket.candidate.model_name
            if plan.verdict is Verdict.GO:
                self._waiting.pop(0)
                held = replace(ticket.candidate, need=plan.seat.need, seats=())
                self._granted[ticket.candidate.model_id] = held
                _settle(ticket.granted, plan.seat)
            elif plan.verdict is Verdict.WAIT or self._may_come_back(plan):
                for model_id in plan.evict:
                    self._room.evict(model_id, name)
                for model_id in plan.finish:
                    self._room.finish(model_id, name)
                return
            else:
                self._waiting.pop(0)
                _settle(ticket.granted, _refusal(ticket.candidate, plan))

    def _may_come_back(self, plan: Plan) -> bool:
        """Is it memory that the driver still shows as used, of a model that has just ended?"""
        since_s = self._clock.monotonic() - self._released_at
        return plan.others_hold_it and since_s < self._settings().memory_return_s


async def _heard(bell: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await bell.wait()
    except TimeoutError:
        return


def _settle(future: asyncio.Future[Seat], outcome: Seat | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Seat):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


def _refusal(candidate: Candidate, plan: Plan) -> OstlerError:
    name = candidate.model_name
    if plan.verdict is Verdict.NEVER:
        return WillNotFit(name, plan.reason, plan.facts)
    limit = "group_limits" if "of the group" in plan.reason else "max_running"
    hint = f"Stop a model (ostler ps, ostler stop NAME) or raise the setting {limit}."
    if plan.facts:
        hint = f"Stop a model (ostler ps, ostler stop NAME), or: ostler start {quote(name)} --ignore-fit"
    return NoRoom(
        f"there is no room for {name}: {plan.reason}",
        retry_after_s=RETRY_AFTER_S,
        hint=hint,
        model=name,
        **plan.facts,
    )
