"""What every list that comes from the database has in common: its order, and one page of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.database import Base
from ostler.core.errors import InvalidField
from ostler.core.paging import Page

R = TypeVar("R")


def check_sort(things: str, sort: str, known: Collection[str]) -> None:
    """Raise InvalidField unless `things` ("keys") can be sorted by this field."""
    if sort not in known:
        raise InvalidField(
            "sort", f"{things} cannot be sorted by {sort!r}", hint=f"One of: {', '.join(known)}."
        )


def order_by(row: type[Base], sort: str, descending: bool) -> tuple[ColumnElement[Any], ...]:
    """The column of that name, then the id, so that equal rows never change places between pages."""
    column = getattr(row, sort)
    return (column.desc() if descending else column.asc(), row.__table__.c.id)


async def count(session: AsyncSession, query: Select[Any]) -> int:
    """How many rows match."""
    return await session.scalar(select(func.count()).select_from(query.subquery())) or 0


async def page_of(
    session: AsyncSession, query: Select[R], *order: ColumnElement[Any], limit: int, offset: int
) -> Page[R]:
    """One page of a query for one thing (a row, an id), and how many match in all."""
    total = await count(session, query)
    found = await session.scalars(query.order_by(*order).limit(limit).offset(offset))
    return Page(list(found), total, limit, offset)
