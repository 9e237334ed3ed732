"""What an import took, and what it could not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ostler.core.errors import OstlerError


class Outcome(StrEnum):
    """What became of one thing: taken, here before, or not taken."""

    TAKEN = "taken"
    THERE = "there"
    REFUSED = "refused"


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
