"""Cortex's words and ways that several nouns share: roles, statuses, sorts, bounds of lists."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path, Query

from ostler.core.errors import InvalidField
from ostler.core.principals import Role
from ostler.models.records import Model

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
"""The number of a thing, in a path."""

IdFilter = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
"""The number of a thing that a list is about."""

Text = Annotated[str | None, Query(max_length=200)]
"""A text that a list is searched for."""

MIB, GIB = 1024**2, 1024**3
ADMIN, USER = "Admin", "User"
ACTIVE, DISABLED = "active", "disabled"
GENERATE, EMBED = "generate", "embed"
"""The tasks that a model may have."""


def role_word(role: Role) -> str:
    """Cortex knows two roles: who administers, and everybody else."""
    return ADMIN if role is Role.ADMIN else USER


def read_role(word: str) -> Role:
    """A role by Cortex's word, or by ours. Raises InvalidField."""
    try:
        return Role.parse(word)
    except ValueError as error:
        raise InvalidField("role", f"unknown role {word[:50]!r}", hint=f"One of: {ADMIN}, {USER}.") from error


def task_word(task: str, options: Mapping[str, Any]) -> str:
    """What a model is for; one that says nothing and is made for embeddings embeds."""
    embeds = options.get("embeddings") is True or options.get("runner") == "pooling"
    return task or (EMBED if embeds else GENERATE)


def task_of(model: Model) -> str:
    """The task of a model."""
    return task_word(model.task, model.options)


def plain_task(task: str) -> str:
    """One of the two tasks that Cortex's pages know: a model embeds, or it generates."""
    return EMBED if task.startswith(EMBED) else GENERATE


def order(sort: str | None, known: dict[str, str], default: str) -> dict[str, Any]:
    """`sort` and `descending` of a list from `field:asc`; what is not known is the default, descending."""
    field, _, direction = (sort or "").partition(":")
    if field not in known:
        return {"sort": known[default], "descending": direction.lower() != "asc" or not field}
    return {"sort": known[field], "descending": direction.lower() != "asc"}


def part(limit: int, offset: int, most: int = 500) -> dict[str, Any]:
    """Which part of a list: Cortex brings what is out of bounds back into them."""
    return {"limit": max(1, min(limit, most)), "offset": max(0, min(offset, 2**31 - 1))}


def mb(size_bytes: float) -> float:
    """Cortex's "MB" are 1024^2 bytes."""
    return round(size_bytes / MIB, 2)


def gb(size_bytes: float) -> float:
    """Cortex's "GB" are 1024^3 bytes."""
    return round(size_bytes / GIB, 2)


def with_zone(at: datetime | None) -> datetime | None:
    """A time without a zone is UTC with Cortex."""
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)
