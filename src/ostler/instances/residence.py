"""The residence: who holds a place and memory, whether another can move in, and who has to move out.

It joins what the keepers know with what `Memory` saw, asks `plan_room`, and carries out what the
scheduler decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ostler.core.settings import Settings
from ostler.core.states import DesiredState
from ostler.instances.keeper import Keeper
from ostler.instances.memory import Engine, Memory
from ostler.instances.orders import GuestsThen, StopOrder
from ostler.instances.plan import Candidate, Places, Plan, Resident, plan_room
from ostler.instances.standing import SYSTEM_ACTOR


class Residence:
    """What the scheduler asks and tells. `keepers` gives all there are."""

    def __init__(
        self, keepers: Callable[[], Iterable[Keeper]], memory: Memory, settings: Callable[[], Settings]
    ) -> None:
        self._keepers = keepers
        self._memory = memory
        self._settings = settings

    async def look(self) -> None:
        """See anew what the devices and the engines hold."""
        await self._memory.look()

    def residents(self) -> list[Resident]:
        """The models that hold a place, with what they hold in memory."""
        found = []
        for keeper in self._keepers():
            resident = keeper.resident()
            if resident is not None and keeper.record is not None:
                claim = self._memory.claim(keeper.record.id, keeper.need.by_device)
                found.append(replace(resident, claim=claim))
        return found

    def plan(self, candidate: Candidate, residents: Sequence[Resident]) -> Plan:
        """May it start, and who leaves for it?"""
        ledger = self._memory.ledger([resident.claim for resident in residents])
        settings = self._settings()
        places = Places(settings.max_running, settings.limit_by_group)
        return plan_room(candidate, residents, places, ledger)

    def evict(self, model_id: int, for_name: str) -> bool:
        """Begin to stop one that is idle; False where it is not idle any more."""
        keeper = self._keeper(model_id)
        if keeper is None or keeper.is_in_use or keeper.is_leaving:
            return False
        idle_s = keeper.idle_s()
        reason = f"idle for {idle_s:.0f} s, left to make room for {for_name}"
        keeper.ask_stop(_eviction(reason, {"for": for_name, "idle_s": idle_s}))
        return True

    def finish(self, model_id: int, for_name: str) -> bool:
        """Let one that is busy end what it serves and leave; its next requests wait in line."""
        keeper = self._keeper(model_id)
        if keeper is None or not keeper.is_ready or keeper.is_leaving:
            return False
        in_flight = keeper.endpoint.in_flight if keeper.endpoint else 0
        order = _eviction(
            f"it has had its turn, and leaves to make room for {for_name}",
            {"for": for_name, "in_flight": in_flight},
        )
        order.cuts_requests = False
        keeper.ask_stop(order)
        return True

    def engines(self) -> list[Engine]:
        """Those that can be looked at."""
        return [engine for keeper in self._keepers() if (engine := keeper.engine()) is not None]

    def _keeper(self, model_id: int) -> Keeper | None:
        return next((keeper for keeper in self._keepers() if keeper.model_id == model_id), None)


def _eviction(reason: str, data: dict[str, object]) -> StopOrder:
    return StopOrder(
        reason,
        SYSTEM_ACTOR,
        kind="instance.evicted",
        desired=DesiredState.STOPPED,
        data=data,
        guests=GuestsThen.LEAVE,
    )
