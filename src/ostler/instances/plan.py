"""Who may start, and who leaves for it: a pure decision over a snapshot.

Two things are scarce: places (`max_running`, and those of a group) and the memory of each device (the
ledger). The cheapest set of idle models that frees enough leaves, and nobody else; `leaving.py` chooses it.
The scheduler carries the decision out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ostler.fit.ledger import Bytes, Claim, Ledger
from ostler.instances import shortage
from ostler.instances.leaving import cheapest, set_cost


@dataclass(frozen=True, slots=True)
class Seat:
    """One way to place a start: the devices that it is given (none: all), and what it needs of each.

    `rank`: the lower the better liked, where two are as good for all others.
    """

    devices: tuple[str, ...] = ()
    need: Bytes | None = None
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that wants to start. `may_evict` is False where it must not push others out.

    `need` is bytes by device; None where it is not known, or where a person said to start it all the
    same: then only places count. `is_batch`: nobody waits for it but work that may wait.
    `seats` are the ways to place it where there are several; they have needs of their own. `limits` are the
    most that it may have of a device, whatever is there.
    """

    model_id: int
    model_name: str
    priority: int = 0
    may_evict: bool = True
    need: Bytes | None = None
    is_batch: bool = False
    seats: tuple[Seat, ...] = ()
    group: str | None = None
    limits: Bytes = field(default_factory=dict)

    @property
    def choices(self) -> tuple[Seat, ...]:
        """The ways to place it, at least one."""
        return self.seats or (Seat(need=self.need),)


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that holds a place. `idle_since` is monotonic seconds; `claim` is what it holds in memory.

    `is_leaving`: it is being stopped and its place will be free. `is_busy`: it loads, serves, or
    somebody waits for it. `had_its_turn`: it is ready and has served without a pause for long enough
    that it may be told to finish. `may_leave`: its policy lets it be evicted at all. `idle_s` and
    `load_s` (how long it would take to come back) are seconds.
    """

    model_id: int
    model_name: str
    is_leaving: bool
    is_busy: bool
    may_leave: bool
    idle_since: float
    priority: int = 0
    claim: Claim = field(default_factory=Claim)
    had_its_turn: bool = False
    idle_s: float = 0.0
    load_s: float = 0.0
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """How many models run at once (0: any number), in all and of each group that is named."""

    in_all: int = 0
    of_group: Mapping[str, int] = field(default_factory=dict)

    def full(self, group: str | None, others: Sequence[Resident]) -> str | None:
        """What keeps one more of that group from running beside these; None while there is place."""
        if self.in_all and len(others) >= self.in_all:
            return f"{len(others)} of {self.in_all} models run"
        limit = self.of_group.get(group) if group is not None else None
        mates = sum(other.group == group for other in others)
        if limit is not None and mates >= limit:
            return f"{mates} of {limit} models of the group {group} run"
        return None


class Verdict(StrEnum):
    """What a start has to do. `NEVER`: not even if nothing else ran."""

    GO = "go"
    WAIT = "wait"
    REFUSE = "refuse"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision: go now; wait (after stopping those in `evict`, if any); or give up, for `reason`.

    Those in `finish` are busy: they take no new requests, end those in flight and leave. `facts` are the
    numbers of a shortage of memory. `others_hold_it`: it would go if no program but ours used the devices.
    `is_coming`: those that leave already free enough. `seat` is the way of placing it that this is about.
    """

    verdict: Verdict
    evict: tuple[int, ...] = ()
    reason: str = ""
    finish: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    others_hold_it: bool = False
    is_coming: bool = False
    seat: Seat = field(default_factory=Seat)


def plan_room(
    candidate: Candidate, residents: Sequence[Resident], places: Places, ledger: Ledger | None = None
) -> Plan:
    """Room by count and by memory: at most as many models as there are places, and none over the ledger.

    In `ledger` the claims of all residents are entered. Idle ones leave, the cheapest set that is
    enough; never one that is pinned or loads. One that serves is waited for, and only when it has had
    its turn told to finish what it serves. Of several seats the one is taken where it can start soonest, and
    at the least cost for others; then the best liked, then the one with the most room.
    """
    ledger = (ledger or Ledger()).within(candidate.limits)
    plans = [
        replace(_plan_seat(_Scene(candidate, seat.need or {}, residents, places, ledger)), seat=seat)
        for seat in candidate.choices
    ]
    return min(plans, key=lambda plan: _worth(plan, residents, ledger))


def _worth(plan: Plan, residents: Sequence[Resident], ledger: Ledger) -> tuple[Any, ...]:
    """The lower the better."""
    steps = (
        plan.verdict is Verdict.GO,
        plan.is_coming,
        bool(plan.evict) and not plan.finish,
        bool(plan.finish),
        plan.verdict is Verdict.WAIT,
        plan.verdict is Verdict.REFUSE and plan.others_hold_it,
        plan.verdict is Verdict.REFUSE,
        True,
    )
    leaving = [r for r in residents if r.model_id in (*plan.evict, *plan.finish)]
    accounts = [ledger.accounts[id] for id in plan.seat.devices if id in ledger.accounts]
    room = sum(account.balance_bytes for account in accounts)
    return steps.index(True), set_cost(leaving), plan.seat.rank, -room, plan.seat.devices


def _plan_seat(scene: _Scene) -> Plan:
    """The plan for one way of placing it."""
    candidate, residents = scene.candidate, scene.residents
    if scene.need and scene.ledger.never(scene.need):
        return scene.because(Verdict.NEVER)
    if scene.is_enough(()):
        return Plan(Verdict.GO)
    gone = [r for r in residents if r.is_leaving]
    if gone and scene.is_enough(gone):
        return Plan(Verdict.WAIT, reason="another model is being stopped", is_coming=True)
    if not candidate.may_evict:
        return scene.because(Verdict.REFUSE, "this start may not stop one")
    can_leave = [r for r in residents if r.may_leave and not r.is_leaving]
    if not scene.is_enough([*gone, *can_leave]):
        return scene.because(Verdict.REFUSE, "none of them may leave")
    for movable in (
        [r for r in can_leave if not r.is_busy],
        [r for r in can_leave if not r.is_busy or r.had_its_turn],
    ):
        if scene.is_enough([*gone, *movable]):
            chosen = cheapest(movable, lambda some: scene.is_enough([*gone, *some]))
            return scene.after_leave_of(chosen)
    return scene.because(Verdict.WAIT, "those that may leave are busy")


@dataclass(frozen=True, slots=True)
class _Scene:
    """The question with its numbers."""

    candidate: Candidate
    need: Bytes
    residents: Sequence[Resident]
    places: Places
    ledger: Ledger

    def is_enough(self, gone: Sequence[Resident]) -> bool:
        """Is there a place and memory once these are gone?"""
        left = {resident.model_id for resident in gone}
        staying = [resident for resident in self.residents if resident.model_id not in left]
        if self.places.full(self.candidate.group, staying):
            return False
        return not self._without(gone).short(self.need)

    def after_leave_of(self, chosen: Sequence[Resident]) -> Plan:
        plan = self.because(Verdict.WAIT)
        evict = tuple(r.model_id for r in chosen if not r.is_busy)
        finish = tuple(r.model_id for r in chosen if r.is_busy)
        return Plan(Verdict.WAIT, evict, plan.reason, finish, plan.facts)

    def because(self, verdict: Verdict, rest: str = "") -> Plan:
        """The verdict with its numbers, and the rest of the sentence where places are what is scarce."""
        staying = [r for r in self.residents if not r.is_leaving]
        reason = self.places.full(self.candidate.group, staying)
        if reason is not None and verdict is not Verdict.NEVER:
            return Plan(verdict, reason=", and ".join(filter(None, (reason, rest))))
        never = verdict is Verdict.NEVER
        facts = shortage.facts(self.need, self.ledger, self.residents, never=never)
        reason = shortage.in_words(facts)
        if rest and staying:
            reason = f"{reason}; {rest}"
        movable = [r for r in self.residents if r.is_leaving or (r.may_leave and self.candidate.may_evict)]
        alone = self._without(movable).without_others()
        others = verdict is Verdict.REFUSE and not alone.short(self.need)
        return Plan(verdict, reason=reason, facts=facts, others_hold_it=others)

    def _without(self, gone: Sequence[Resident]) -> Ledger:
        ledger = self.ledger
        for resident in gone:
            ledger = ledger.give_back(resident.claim.held)
        return ledger
