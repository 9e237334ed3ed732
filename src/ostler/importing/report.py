"""What an import took, and what it could not."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ostler.core.errors import OstlerError


class Outcome(StrEnum):
    """What became of one thing: taken, here before, or not taken."""

    TAKEN = "taken"
    THERE = "there"
    REFUSED = "refused"


Told = tuple[Outcome, str | None]
"""What became of one thing, and a note."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of the other system. `note` says why it was not taken, or what is left to do."""

    kind: str
    name: str
    outcome: Outcome
    note: str | None = None


@dataclass(slots=True)
class Report:
    """All of it. With `dry_run` nothing was changed: `taken` is what would be."""

    dry_run: bool
    items: list[Item] = field(default_factory=list)

    def add(self, kind: str, name: str, outcome: Outcome, note: str | None = None) -> None:
        """Tell of one thing."""
        self.items.append(Item(kind, name, outcome, note))

    async def take(self, kind: str, name: object, work: Awaitable[Told]) -> None:
        """Do one piece of work and write down what came of it; an error of ours is why it was not taken."""
        try:
            outcome, note = await work
        except OstlerError as error:
            outcome, note = Outcome.REFUSED, reason_of(error)
        self.add(kind, str(name), outcome, note)

    def count(self, outcome: Outcome) -> int:
        """How many things came to this."""
        return sum(item.outcome is outcome for item in self.items)

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of things, in the order in which they came."""
        return tuple(dict.fromkeys(item.kind for item in self.items))


def reason_of(error: OstlerError) -> str:
    """Why something was not taken, and what to do about it."""
    return f"{error.message}. {error.hint}" if error.hint else error.message
