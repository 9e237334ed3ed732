"""The cheapest set of models that frees enough.

What it costs to stop a model is what its return would take, weighed by how soon that may be: its load
time, less the longer it has been idle. A lower priority always leaves before a higher one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Protocol, TypeVar

MOST_TRIED = 10
"""Up to so many models every set is tried; above, one is grown from the cheapest and pruned."""
IDLE_HALF_S = 60.0
"""After so many idle seconds a model counts as half as likely to be wanted again."""


class Leaver(Protocol):
    """What is looked at."""

    @property
    def priority(self) -> int:
        """Higher leaves later."""

    @property
    def idle_since(self) -> float:
        """Monotonic seconds."""

    @property
    def idle_s(self) -> float:
        """Seconds since its last request."""

    @property
    def load_s(self) -> float:
        """Seconds that its last load took."""

    @property
    def is_busy(self) -> bool:
        """True while it serves."""


L = TypeVar("L", bound=Leaver)


def cheapest(movable: Sequence[L], is_enough: Callable[[Sequence[L]], bool]) -> tuple[L, ...]:
    """The set to stop, the longest idle first; none of its members could be left out.

    All of `movable` together must be enough, and more of them never less so.
    """
    ordered = sorted(movable, key=lambda r: (r.priority, r.is_busy, r.idle_since))
    if len(ordered) > MOST_TRIED:
        return _grown(ordered, is_enough)
    sets = (some for n in range(len(ordered) + 1) for some in combinations(ordered, n) if is_enough(some))
    return min(sets, key=set_cost)


def cost(resident: Leaver) -> float:
    """Seconds that its leave is expected to cost. Loads of less than a second count as one."""
    load_s = max(1.0, round(resident.load_s))
    return load_s * IDLE_HALF_S / (IDLE_HALF_S + max(0.0, resident.idle_s))


def set_cost(some: Sequence[Leaver]) -> tuple[int, int, float, float]:
    """By the highest priority in it, how many are busy, the cost, and how lately they were used."""
    highest = max((r.priority for r in some), default=0)
    return highest, sum(r.is_busy for r in some), sum(map(cost, some)), sum(r.idle_since for r in some)


def _grown(ordered: Sequence[L], is_enough: Callable[[Sequence[L]], bool]) -> tuple[L, ...]:
    chosen: list[L] = []
    for resident in sorted(ordered, key=lambda r: (r.priority, r.is_busy, cost(r), r.idle_since)):
        if is_enough(chosen):
            break
        chosen.append(resident)
    for resident in reversed(list(chosen)):  # the dearest first: perhaps it need not go
        rest = [r for r in chosen if r is not resident]
        if is_enough(rest):
            chosen = rest
    return tuple(sorted(chosen, key=ordered.index))
