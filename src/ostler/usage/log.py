"""Finding and adding up what was accounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, String, case, cast, delete, func, select

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import InvalidField
from ostler.core.paging import Page
from ostler.core.queries import check_sort, count, page_of
from ostler.usage.filters import EVERYTHING, RequestFilter, failed
from ostler.usage.moments import moment
from ostler.usage.records import RequestRecord
from ostler.usage.tables import RequestRow

CLEAN_BATCH = 5_000
WALK_BATCH = 1_000
SORTS = ("at", "duration_s", "first_token_s", "prompt_tokens", "completion_tokens", "status", "model_name")
By = Literal["model", "key", "user", "organisation", "day"]


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """The sum over one model, key (its principal's name), person or organisation (by id), or day (UTC).

    `name` is empty for requests of nobody in particular; a day is YYYY-MM-DD.

    `first_token_s` and `duration_s` are means in seconds; `errors` counts statuses from 400 on and
    answers that were cut.
    """

    name: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A stored record with its id."""

    id: int
    record: RequestRecord


class UsageLog:
    """Reads the accounted requests, and forgets the old ones."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(
        self,
        wanted: RequestFilter = EVERYTHING,
        *,
        sort: str = "at",
        descending: bool = True,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[StoredRequest]:
        """One page of requests, newest first. Raises InvalidField for an unknown sort."""
        check_sort("requests", sort, SORTS)
        query = wanted.narrow(select(RequestRow))
        column = getattr(RequestRow, sort)
        order = (column.desc(), RequestRow.id.desc()) if descending else (column.asc(), RequestRow.id.asc())
        async with self._database.read() as session:
            return (await page_of(session, query, *order, limit=limit, offset=offset)).map(_stored)

    async def walk(self, wanted: RequestFilter = EVERYTHING, *, limit: int) -> AsyncIterator[StoredRequest]:
        """The newest `limit` requests, newest first, read piece by piece: a slow reader holds nothing."""
        last: int | None = None
        while limit > 0:
            query = wanted.narrow(select(RequestRow)).order_by(RequestRow.id.desc())
            if last is not None:
                query = query.where(RequestRow.id < last)
            async with self._database.read() as session:
                rows = (await session.scalars(query.limit(min(limit, WALK_BATCH)))).all()
            for row in rows:
                yield _stored(row)
            if len(rows) < min(limit, WALK_BATCH):
                return
            limit -= len(rows)
            last = rows[-1].id

    async def totals(
        self,
        by: By,
        wanted: RequestFilter = EVERYTHING,
        *,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[UsageTotal]:
        """Sums by model, key or day: most requests first, days newest first. Raises InvalidField."""
        name = self._group(by)
        query = wanted.narrow(
            select(
                name,
                *sums(),
                func.avg(RequestRow.first_token_s),
                func.avg(RequestRow.duration_s),
            ).group_by(name)
        )
        ordered = (
            query.order_by(name.desc())
            if by == "day"
            else query.order_by(func.count(RequestRow.id).desc(), name)
        )
        async with self._database.read() as session:
            total = await count(session, query)
            rows = (await session.execute(ordered.limit(limit).offset(offset))).all()
        return Page([_total(row) for row in rows], total, limit, offset)

    async def used_since(self, since: datetime) -> dict[int, tuple[int, int]]:
        """Requests and tokens by key id, of all keys that were used from that time on."""
        query = (
            select(
                RequestRow.key_id,
                func.count(RequestRow.id),
                func.coalesce(func.sum(RequestRow.prompt_tokens), 0)
                + func.coalesce(func.sum(RequestRow.completion_tokens), 0),
            )
            .where(RequestRow.key_id.is_not(None), RequestRow.at >= since)
            .group_by(RequestRow.key_id)
        )
        async with self._database.read() as session:
            rows = (await session.execute(query)).all()
        return {key: (int(requests), int(tokens or 0)) for key, requests, tokens in rows if key is not None}

    async def forget(self, older_than_days: int) -> int:
        """Delete what is older, in batches so that no writer waits long; how many were deleted."""
        before = self._clock.now() - timedelta(days=older_than_days)
        deleted = 0
        while True:
            oldest = select(RequestRow.id).where(RequestRow.at < before).limit(CLEAN_BATCH)
            async with self._database.write() as session:
                result = await session.execute(delete(RequestRow).where(RequestRow.id.in_(oldest)))
            gone = int(getattr(result, "rowcount", 0))
            deleted += gone
            if gone < CLEAN_BATCH:
                return deleted
            await asyncio.sleep(0)

    def _group(self, by: str) -> ColumnElement[str]:
        if by == "model":
            return RequestRow.model_name.expression
        if by == "key":
            return RequestRow.principal.expression
        if by in ("user", "organisation"):
            column = RequestRow.user_id if by == "user" else RequestRow.org_id
            return func.coalesce(cast(column, String), "")
        if by == "day":
            return moment("day", sqlite=self._database.is_sqlite)
        raise InvalidField(
            "by", f"usage cannot be added up by {by!r}", hint="One of: model, key, user, organisation, day."
        )


def sums() -> tuple[ColumnElement[Any], ...]:
    """Columns: how many requests, how many failed, prompt and completion tokens."""
    return (
        func.count(RequestRow.id),
        func.coalesce(func.sum(case((failed(), 1), else_=0)), 0),
        func.coalesce(func.sum(RequestRow.prompt_tokens), 0),
        func.coalesce(func.sum(RequestRow.completion_tokens), 0),
    )


def _stored(row: RequestRow) -> StoredRequest:
    values = {name: getattr(row, name) for name in RequestRecord.__slots__}
    return StoredRequest(row.id, RequestRecord(**values))


def _total(row: Any) -> UsageTotal:
    name, requests, errors, prompt, completion, first_token_s, duration_s = row
    return UsageTotal(
        name=str(name),
        requests=int(requests),
        errors=int(errors),
        prompt_tokens=int(prompt),
        completion_tokens=int(completion),
        first_token_s=None if first_token_s is None else float(first_token_s),
        duration_s=float(duration_s),
    )
