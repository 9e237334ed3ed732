"""The door of BodhiApp's routes: who comes in, and how a part of a list is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from ostler.api.dialects.bodhi.errors import KeyNotForThis
from ostler.api.door import Door
from ostler.core.principals import Principal, Role

MAX_PAGE_SIZE = 100
MAX_PAGE = 10_000_000


class BodhiDoor(Door):
    """A key or a session; some routes take no key.

    BodhiApp's web pages send no CSRF token: a session may change things where the browser says that a page
    of this server or of an allowed origin asks.
    """

    trusts_origin = True


class SessionDoor(BodhiDoor):
    """For people only: no key opens it, whatever its role."""

    @classmethod
    def let_in(cls, principal: Principal, role: Role, what: str) -> None:
        """Raise KeyNotForThis for a key."""
        if principal.key_id is not None:
            raise KeyNotForThis(f"a key may not {what}: that is for people who have signed in")
        super().let_in(principal, role, what)


def router(tag: str, door: type[BodhiDoor] = BodhiDoor) -> APIRouter:
    """A router of such doors; `tag` names the noun."""
    return APIRouter(tags=[f"bodhi: {tag}"], route_class=door)


class BodhiBody(BaseModel):
    """A request's body. Fields that are not known are passed over, as BodhiApp does."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class BodhiPaging:
    """Which part of a list: pages count from 1, and what is out of bounds is brought back into them."""

    page: int
    page_size: int
    sort: str | None
    descending: bool

    @property
    def offset(self) -> int:
        """How many items come before this page."""
        return (self.page - 1) * self.page_size

    def cut(self, items: Sequence[Any]) -> list[Any]:
        """This page of a list that is in memory."""
        return list(items[self.offset : self.offset + self.page_size])

    def answer(self, data: Sequence[Any], total: int) -> dict[str, Any]:
        """The envelope of a list."""
        return {"data": list(data), "total": total, "page": self.page, "page_size": self.page_size}


async def _paging(
    page: Annotated[int, Query(description="From 1.")] = 1,
    page_size: Annotated[int, Query(description=f"At most {MAX_PAGE_SIZE}.")] = 30,
    sort: Annotated[str | None, Query(max_length=100)] = None,
    sort_order: Annotated[str, Query(max_length=100, description="asc or desc.")] = "asc",
) -> BodhiPaging:
    page, page_size = max(1, min(page, MAX_PAGE)), max(1, min(page_size, MAX_PAGE_SIZE))
    return BodhiPaging(page, page_size, sort, sort_order.strip().lower() == "desc")


Paged = Annotated[BodhiPaging, Depends(_paging)]
"""A route's parameter: page, page_size, sort, sort_order."""
