"""The queue of starts. It asks the planner, lets others be stopped, and hands out places in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ostler.core.clock import Clock
from ostler.instances.errors import NoRoom
from ostler.instances.plan import Candidate, Plan, Planner, Resident, Verdict

RETRY_AFTER_S = 5.0


@dataclass
class _Ticket:
    candidate: Candidate
    order: int
    granted: asyncio.Future[None]
    reason: str = field(default="")


class Scheduler:
    """Places for running models.

    `residents` gives the models that hold a place, `evict(model_id, for_name)` begins to stop one if
    it is still idle. Both are called on the event loop and do not wait.
    """

    def __init__(
        self,
        planner: Planner,
        residents: Callable[[], Sequence[Resident]],
        evict: Callable[[int, str], bool],
        clock: Clock,
    ) -> None:
        self._planner = planner
        self._residents = residents
        self._evict = evict
        self._clock = clock
        self._waiting: list[_Ticket] = []
        self._granted: dict[int, Candidate] = {}
        self._numbers = itertools.count()

    @property
    def has_waiting(self) -> bool:
        """True while a start waits for a place."""
        return bool(self._waiting)

    async def admit(self, candidate: Candidate, *, timeout_s: float) -> None:
        """Return when the model has a place; it keeps it until `release`. Raises NoRoom."""
        granted = asyncio.get_running_loop().create_future()
        ticket = _Ticket(candidate, next(self._numbers), granted)
        self._waiting.append(ticket)
        self._waiting.sort(key=lambda t: (-t.candidate.priority, t.order))
        try:
            self.poke()
            async with asyncio.timeout(timeout_s):
                await granted
        except TimeoutError:
            raise _no_room(candidate, ticket.reason) from None
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(candidate.model_id)
            raise
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self.poke()

    def release(self, model_id: int) -> None:
        """The model does not hold its place any more."""
        self._granted.pop(model_id, None)
        self.poke()

    def preview(self, candidate: Candidate) -> Plan:
        """What `admit` would decide now."""
        return self._planner(candidate, self._holders())

    def poke(self) -> None:
        """Something changed: decide again. The first in line is never overtaken by a later one."""
        while self._waiting:
            ticket = self._waiting[0]
            plan = self._planner(ticket.candidate, self._holders())
            ticket.reason = plan.reason
            if plan.verdict is Verdict.GO:
                self._waiting.pop(0)
                self._granted[ticket.candidate.model_id] = ticket.candidate
                _settle(ticket.granted, None)
            elif plan.verdict is Verdict.REFUSE:
                self._waiting.pop(0)
                _settle(ticket.granted, _no_room(ticket.candidate, plan.reason))
            else:
                for model_id in plan.evict:
                    self._evict(model_id, ticket.candidate.model_name)
                return

    def _holders(self) -> list[Resident]:
        """Who holds a place: residents, and starts that have one but are not resident yet."""
        residents = list(self._residents())
        known = {resident.model_id for resident in residents}
        now = self._clock.monotonic()
        return residents + [
            Resident(c.model_id, c.model_name, False, True, True, now, c.priority)
            for c in self._granted.values()
            if c.model_id not in known
        ]


def _settle(future: asyncio.Future[None], error: NoRoom | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _no_room(candidate: Candidate, reason: str) -> NoRoom:
    return NoRoom(
        f"there is no room for {candidate.model_name}: {reason}",
        retry_after_s=RETRY_AFTER_S,
        hint="Stop a model (ostler ps, ostler stop NAME) or raise the setting max_running.",
        model=candidate.model_name,
    )
