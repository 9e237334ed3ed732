"""What bodies and answers have in common: strict bodies, pages, and the hiding of secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, model_validator

from ostler.core.errors import InvalidField
from ostler.core.launch import HIDDEN
from ostler.core.near import near_names
from ostler.core.paging import MAX_LIMIT, Page

T = TypeVar("T")

_SECRET = re.compile(r"key|secret|passw|credential|token(?!s|iz)", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+@")


class Body(BaseModel):
    """A request's body. An unknown field is refused, with the near ones named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name in data:
                if name not in cls.model_fields:
                    near = near_names(str(name), cls.model_fields)
                    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(cls.model_fields)}."
                    raise InvalidField(str(name)[:100], f"unknown field {str(name)[:100]!r}", hint=hint)
        return data


class Out(BaseModel):
    """An answer, read from the attributes of a room's value."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class PageOut(BaseModel, Generic[T]):
    """One page of a list: `items` from `offset` on, at most `limit` of `total`."""

    items: list[T]
    total: int
    limit: int
    offset: int


def page_out(page: Page[Any], items: Sequence[Any] | None = None) -> dict[str, Any]:
    """A page, ready for its shape; `items` in place of its own where they were changed."""
    return {
        "items": page.items if items is None else list(items),
        "total": page.total,
        "limit": page.limit,
        "offset": page.offset,
    }


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is asked for, in which order. `sort` None: the list's own order."""

    limit: int
    offset: int
    sort: str | None
    descending: bool
    search: str | None

    def order(self, default: str) -> dict[str, Any]:
        """`sort` and `descending` for a service's list function."""
        return {"sort": self.sort or default, "descending": self.descending}

    @property
    def part(self) -> dict[str, Any]:
        """`limit` and `offset` for a service's list function."""
        return {"limit": self.limit, "offset": self.offset}

    def cut(self, items: Sequence[T]) -> Page[T]:
        """This part of a list that is in memory."""
        return Page(list(items[self.offset : self.offset + self.limit]), len(items), self.limit, self.offset)


async def _paging(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items in the answer.")] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1, description="How many items to skip.")] = 0,
    sort: Annotated[
        str | None, Query(max_length=50, description="A field to sort by; with '-' before it, descending.")
    ] = None,
    search: Annotated[
        str | None, Query(max_length=200, description="Only items that hold this text.")
    ] = None,
) -> Paging:
    descending = bool(sort) and str(sort).startswith("-")
    return Paging(limit, offset, sort.lstrip("-") or None if sort else None, descending, search)


Listing = Annotated[Paging, Depends(_paging)]
"""A route's parameter: limit, offset, sort and search."""


def hide_env(env: Mapping[str, str]) -> dict[str, str]:
    """Environment variables with the values of those that look secret hidden."""
    return {name: HIDDEN if _SECRET.search(name) else value for name, value in env.items()}


def hide_args(args: Sequence[str]) -> list[str]:
    """Arguments with the values of flags that look secret hidden, as `--flag value` or `--flag=value`."""
    hidden: list[str] = []
    hide_next = False
    for argument in args:
        flag, equals, _ = argument.partition("=")
        secret = flag.startswith("-") and _SECRET.search(flag) is not None
        if hide_next and not argument.startswith("-"):
            hidden.append(HIDDEN)
        elif secret and equals:
            hidden.append(f"{flag}={HIDDEN}")
        else:
            hidden.append(argument)
        hide_next = secret and not equals
    return hidden


def hide_password(url: str) -> str:
    """A URL with the password in it hidden."""
    return _USER_INFO.sub(rf"\1:{HIDDEN}@", url)
