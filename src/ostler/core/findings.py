"""Findings: what is known of a start before it happens, as data that programs can act on.

Rooms make them, a dry run shows them, and a start refuses where one of them is an error. `code` is stable;
an error that `can_ignore` is overridden by naming its code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """An error blocks a start, a warning is worth a second look, an info explains."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Category(StrEnum):
    """What it is about: room, how the engine is called, or everything else that was configured."""

    MEMORY = "memory"
    ARGS = "args"
    CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. `title` are a few words, `message` one sentence with the facts.

    `fix` says what to do, `field` names the part of the recipe that it is about ("options.threads").
    """

    code: str
    severity: Severity
    category: Category
    title: str
    message: str
    fix: str | None = None
    field: str | None = None
    can_ignore: bool = False

    @property
    def is_error(self) -> bool:
        """True where it blocks a start."""
        return self.severity is Severity.ERROR

    @property
    def sentence(self) -> str:
        """Message and fix in one text."""
        return f"{self.message}. {self.fix}" if self.fix else self.message

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "severity": self.severity.value, "category": self.category.value}


def overridden(findings: Iterable[Finding], ignore: Collection[str]) -> list[Finding]:
    """The same with those errors that are to be ignored as warnings."""
    return [
        replace(found, severity=Severity.WARNING)
        if found.is_error and found.can_ignore and found.code in ignore
        else found
        for found in findings
    ]
