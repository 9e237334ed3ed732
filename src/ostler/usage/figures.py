"""What many requests have in common: how long they took (true quantiles), and how many came when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select

from ostler.core.database import Database
from ostler.usage.filters import RequestFilter
from ostler.usage.log import sums
from ostler.usage.moments import LENGTHS, Bucket, begin_of, moment, parse_moment
from ostler.usage.tables import RequestRow

Measure = Literal["duration_s", "first_token_s"]
MAX_POINTS = 5_000


@dataclass(frozen=True, slots=True)
class Spread:
    """How a duration is spread over `samples` requests, in seconds; None where there is none."""

    samples: int
    mean_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """Requests, those of them that failed, and tokens."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """The sums of one bucket, that begins at `at`."""

    at: datetime
    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class UsageFigures:
    """Adds up and sorts what was accounted; every figure is over exactly the requests that are meant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def spread(self, measure: Measure, wanted: RequestFilter) -> Spread:
        """Mean, median and 95th percentile. Between two values it is interpolated, as PostgreSQL does."""
        column = getattr(RequestRow, measure)
        query = wanted.narrow(select(column).where(column.is_not(None))).subquery()
        value = query.c[0]
        ranked = select(
            value.label("value"), func.row_number().over(order_by=value).label("place")
        ).subquery()
        async with self._database.read() as session:
            count, mean = (await session.execute(select(func.count(), func.avg(value)))).one()
            if not count:
                return Spread(0)
            places = {place for share in (0.5, 0.95) for place in _neighbours(share, count)}
            rows = select(ranked.c.place, ranked.c.value).where(ranked.c.place.in_(sorted(places)))
            found = {int(place): float(seconds) for place, seconds in (await session.execute(rows)).all()}
        return Spread(int(count), float(mean), _at(found, 0.5, count), _at(found, 0.95, count))

    async def sums(self, wanted: RequestFilter) -> Sums:
        """Everything added up."""
        async with self._database.read() as session:
            row = (await session.execute(wanted.narrow(select(*sums())))).one()
        return Sums(*(int(value) for value in row))

    async def series(self, bucket: Bucket, wanted: RequestFilter) -> list[Point]:
        """The buckets in which requests came, oldest first; of very many the newest `MAX_POINTS`."""
        name = moment(bucket, sqlite=self._database.is_sqlite)
        query = wanted.narrow(select(name, *sums()).group_by(name)).order_by(name.desc()).limit(MAX_POINTS)
        async with self._database.read() as session:
            rows = (await session.execute(query)).all()
        return [Point(parse_moment(row[0], bucket), *(int(value) for value in row[1:])) for row in rows[::-1]]


def filled(points: Sequence[Point], bucket: Bucket, since: datetime, until: datetime) -> list[Point]:
    """The series with the empty buckets in it too, where that makes at most `MAX_POINTS`."""
    step, at = LENGTHS[bucket], begin_of(since, bucket)
    if (until - at) / step > MAX_POINTS:
        return list(points)
    there = {point.at: point for point in points}
    whole: list[Point] = []
    while at < until:
        whole.append(there.get(at, Point(at)))
        at += step
    return whole


def _neighbours(share: float, count: int) -> tuple[int, int]:
    """The places, from 1 on, between which the quantile lies."""
    below = int(share * (count - 1))
    return below + 1, min(below + 2, count)


def _at(values: dict[int, float], share: float, count: int) -> float:
    low, high = _neighbours(share, count)
    part = share * (count - 1) - (low - 1)
    return values[low] + (values[high] - values[low]) * part
