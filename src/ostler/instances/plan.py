"""Who may start, and who leaves for it: a pure decision over a snapshot.

`Planner` is where admission by memory plugs in: a ledger of devices is another function of the same
shape. The scheduler carries the decision out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ostler.core.launch import LaunchSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that wants to start. `may_evict` is False where it must not push others out."""

    model_id: int
    model_name: str
    spec: LaunchSpec
    priority: int = 0
    may_evict: bool = True


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that holds a place. `idle_since` is monotonic seconds; memory is measured, if known.

    `is_leaving`: it is being stopped and its place will be free. `is_busy`: it loads, serves, or
    somebody waits for it. `may_leave`: its policy lets it be evicted at all.
    """

    model_id: int
    model_name: str
    is_leaving: bool
    is_busy: bool
    may_leave: bool
    idle_since: float
    priority: int = 0
    memory_bytes: int | None = None


class Verdict(StrEnum):
    """What a start has to do."""

    GO = "go"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision: go now; wait (after stopping those in `evict`, if any); or give up, for `reason`."""

    verdict: Verdict
    evict: tuple[int, ...] = ()
    reason: str = ""


Planner = Callable[[Candidate, Sequence[Resident]], Plan]


def plan_room(candidate: Candidate, residents: Sequence[Resident], max_running: int) -> Plan:
    """Room by count: at most `max_running` models (0: any number).

    The longest idle leaves, of the lowest priority first; never one that is pinned, busy or serving.
    """
    staying = [r for r in residents if not r.is_leaving]
    if max_running == 0 or len(residents) < max_running:
        return Plan(Verdict.GO)
    surplus = len(staying) + 1 - max_running
    if surplus <= 0:
        return Plan(Verdict.WAIT, reason="another model is being stopped")
    reason = f"{len(staying)} of {max_running} models run"
    if not candidate.may_evict:
        return Plan(Verdict.REFUSE, reason=f"{reason}, and this start may not stop one")
    can_leave = [r for r in staying if r.may_leave]
    if len(can_leave) < surplus:
        return Plan(Verdict.REFUSE, reason=f"{reason}, and none of them may leave")
    idle = sorted((r for r in can_leave if not r.is_busy), key=lambda r: (r.priority, r.idle_since))
    if len(idle) < surplus:
        return Plan(Verdict.WAIT, reason=f"{reason}, and those that may leave are busy")
    return Plan(Verdict.WAIT, evict=tuple(r.model_id for r in idle[:surplus]), reason=reason)
