"""Quantiles, sums by time, filters and long walks over accounted requests."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from ostler.core.database import Database
from ostler.core.errors import InvalidField
from ostler.usage import UsageLog
from ostler.usage.figures import MAX_POINTS, Point, UsageFigures, filled
from ostler.usage.filters import EVERYTHING, RequestFilter, task_of
from tests.usage.test_usage import NOON, HeldClock, a_record, stored


@pytest.fixture
def figures(database: Database) -> UsageFigures:
    return UsageFigures(database)


@pytest.fixture
def log(database: Database) -> UsageLog:
    return UsageLog(database, HeldClock())


@pytest.mark.parametrize(("count", "p50", "p95"), [(1, 1.0, 1.0), (2, 1.5, 1.95), (101, 51.0, 96.0)])
async def test_quantiles_are_those_of_the_values(
    database: Database, figures: UsageFigures, count: int, p50: float, p95: float
) -> None:
    values = [float(number) for number in range(1, count + 1)]
    random.Random(4).shuffle(values)
    await stored(database, *(a_record(duration_s=value) for value in values))
    spread = await figures.spread("duration_s", EVERYTHING)
    assert spread.samples == count and spread.mean_s == pytest.approx(sum(values) / count)
    assert [spread.p50_s, spread.p95_s] == pytest.approx([p50, p95])


async def test_only_what_is_meant_is_measured(database: Database, figures: UsageFigures) -> None:
    await stored(
        database,
        a_record(duration_s=1.0, first_token_s=None),
        a_record(duration_s=9.0, first_token_s=0.5, model_name="other", instance_id=11),
        a_record(duration_s=99.0, status=500, at=NOON - timedelta(hours=3)),
    )
    assert (await figures.spread("first_token_s", EVERYTHING)).samples == 2
    assert (await figures.spread("duration_s", RequestFilter(model="other"))).p50_s == 9.0
    assert (await figures.spread("duration_s", RequestFilter(instance_id=11))).p50_s == 9.0
    assert (await figures.spread("duration_s", RequestFilter(status_class=2))).p95_s == pytest.approx(8.6)
    nothing = await figures.spread("duration_s", RequestFilter(model="nobody"))
    assert (nothing.samples, nothing.p50_s, nothing.mean_s) == (0, None, None)
    assert (await figures.sums(RequestFilter(since=NOON))).requests == 2
    assert (await figures.sums(EVERYTHING)).errors == 1


async def test_requests_are_added_up_by_minute_hour_and_day(
    database: Database, figures: UsageFigures
) -> None:
    for minutes in (0, 0, 1, 61, 24 * 60):
        await stored(database, a_record(at=NOON - timedelta(minutes=minutes)))
    by_minute = await figures.series("minute", EVERYTHING)
    assert [(point.at, point.requests) for point in by_minute[-2:]] == [
        (NOON - timedelta(minutes=1), 1),
        (NOON, 2),
    ]
    assert [point.requests for point in await figures.series("hour", EVERYTHING)] == [1, 1, 1, 2]
    by_day = await figures.series("day", EVERYTHING)
    assert [(point.at.hour, point.requests) for point in by_day] == [(0, 1), (0, 4)]
    assert by_day[-1].prompt_tokens == 12 and by_day[-1].completion_tokens == 20


def test_empty_buckets_are_filled_in_unless_there_are_too_many() -> None:
    point = Point(NOON, 3)
    whole = filled([point], "hour", NOON - timedelta(hours=2), NOON + timedelta(minutes=1))
    assert [(one.at.hour, one.requests) for one in whole] == [(10, 0), (11, 0), (12, 3)]
    long = timedelta(minutes=MAX_POINTS + 2)
    assert filled([point], "minute", NOON - long, NOON) == [point]


async def test_requests_are_found_by_task_and_by_class_of_status(database: Database, log: UsageLog) -> None:
    await stored(
        database,
        a_record(path="/v1/chat/completions"),
        a_record(path="/v1/completions", status=204),
        a_record(path="/v1/embeddings", status=503),
        a_record(path="/v1/audio/speech"),
    )

    async def found(**wanted: object) -> int:
        return (await log.find(RequestFilter(**wanted))).total  # type: ignore[arg-type]

    assert await found(task="chat") == await found(task="completions") == await found(task="embeddings") == 1
    assert (await found(task="generate"), await found(task="embed")) == (2, 1)
    assert (await found(status_class=2), await found(status_class=5), await found(status_class=4)) == (
        3,
        1,
        0,
    )
    assert task_of("/v1/messages") == "generate" and task_of("/v1/audio/speech") is None
    with pytest.raises(InvalidField):
        RequestFilter(task="dance")


async def test_a_long_walk_meets_every_request_once_newest_first(database: Database, log: UsageLog) -> None:
    count = 2_100
    await stored(database, *(a_record(path=f"/{number}") for number in range(count)))
    walked = [found.record.path async for found in log.walk(limit=count)]
    assert walked == [f"/{number}" for number in reversed(range(count))]
    assert len([found async for found in log.walk(limit=1_001)]) == 1_001
    assert [found async for found in log.walk(RequestFilter(model="nobody"), limit=5)] == []
