"""What bodies and answers have in common: strict bodies, pages, and the hiding of secrets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, cast, get_type_hints

from fastapi import Depends, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from ostler.core.errors import InvalidField
from ostler.core.launch import HIDDEN, names_secret
from ostler.core.near import near_names
from ostler.core.paging import MAX_LIMIT, Page
from ostler.core.principals import Role

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)

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


def _label(role: Any) -> Any:
    return role.label if isinstance(role, Role) else role


RoleLabel = Annotated[str, BeforeValidator(_label)]
"""A role by its name."""


def shape_of(value: type, *, without: Collection[str] = ()) -> Callable[[type[S]], type[S]]:
    """Make a class the shape of a room's dataclass: it gets those of its fields that it does not declare.

    So a field stands in one place, the room's; a shape declares only what it shows otherwise or adds.
    `without` names the fields that stay inside.
    """

    def complete(shape: type[S]) -> type[S]:
        own: dict[str, Any] = {name: (info.annotation, info) for name, info in shape.model_fields.items()}
        types = get_type_hints(value, include_extras=True)
        shown: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            if field.name not in without:
                shown[field.name] = own.pop(field.name, (_shown_as(types[field.name]), _default(field)))
        made: Any = create_model(
            shape.__name__,
            __base__=shape.__bases__,
            __module__=shape.__module__,
            __doc__=shape.__doc__,
            **shown,
            **own,
        )
        return cast(type[S], made)

    return complete


def _shown_as(kind: Any) -> Any:
    """A role is shown by its name, all else as it is."""
    return RoleLabel if kind is Role else kind


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is dataclasses.MISSING else field.default


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


def one_page(items: Sequence[Any]) -> dict[str, Any]:
    """All of a list that is never long, as a page."""
    return page_out(Page(list(items), len(items), max(1, len(items)), 0))


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
    return {name: HIDDEN if names_secret(name) else value for name, value in env.items()}


def hide_args(args: Sequence[str]) -> list[str]:
    """Arguments with the values of flags that look secret hidden, as `--flag value` or `--flag=value`."""
    hidden: list[str] = []
    hide_next = False
    for argument in args:
        flag, equals, _ = argument.partition("=")
        secret = flag.startswith("-") and names_secret(flag)
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
