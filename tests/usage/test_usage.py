from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import OperationalError

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import InvalidField
from ostler.usage import RequestRecord, UsageLog, UsageWriter
from ostler.usage.filters import RequestFilter
from ostler.usage.log import CLEAN_BATCH
from ostler.usage.writer import BATCH

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class HeldClock(Clock):
    def now(self) -> datetime:
        return NOON


def a_record(**changes: object) -> RequestRecord:
    record = RequestRecord(
        at=NOON,
        model_id=1,
        model_name="demo",
        instance_id=10,
        key_id=None,
        user_id=None,
        org_id=None,
        principal="local",
        path="/v1/chat/completions",
        status=200,
        streamed=True,
        prompt_tokens=3,
        completion_tokens=5,
        first_token_s=0.25,
        duration_s=1.5,
        error=None,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


@pytest.fixture
def log(database: Database) -> UsageLog:
    return UsageLog(database, HeldClock())


async def stored(database: Database, *records: RequestRecord) -> None:
    writer = UsageWriter(database)
    for record in records:
        writer.record(record)
    await writer.flush()


async def test_a_record_comes_back_as_it_was(database: Database, log: UsageLog) -> None:
    full = a_record(key_id=7, error='it\'s "odd" — ü')
    empty = a_record(
        model_id=None, instance_id=None, prompt_tokens=None, completion_tokens=None, first_token_s=None
    )
    await stored(database, full, empty)
    page = await log.find(descending=False)
    assert [item.record for item in page.items] == [full, empty]
    assert page.total == 2


async def test_a_flush_waits_for_what_is_being_stored(database: Database, log: UsageLog) -> None:
    writer = UsageWriter(database, flush_s=0)
    await writer.start()
    async with database.write():  # so that nobody else writes
        writer.record(a_record())
        while writer.waiting:
            await asyncio.sleep(0)
        flushing = asyncio.create_task(writer.flush())
        await asyncio.sleep(0)
        assert not flushing.done()
    await flushing
    assert (await log.find()).total == 1
    await writer.close()


async def test_more_than_one_batch_is_stored_whole_and_in_order(database: Database, log: UsageLog) -> None:
    count = BATCH * 2 + 7
    await stored(database, *(a_record(status=200 + n % 100, path=f"/{n}") for n in range(count)))
    page = await log.find(sort="at", descending=False, limit=1000, offset=count - 3)
    assert page.total == count
    assert [item.record.path for item in page.items] == [f"/{n}" for n in range(count - 3, count)]


async def test_a_running_writer_stores_by_itself_and_at_its_end(database: Database, log: UsageLog) -> None:
    writer = UsageWriter(database, flush_s=0.01)
    await writer.start()
    writer.record(a_record())
    async with asyncio.timeout(5):
        while not (await log.find()).total:
            await asyncio.sleep(0.01)
    await writer.close()
    slow = UsageWriter(database, flush_s=3600)
    await slow.start()
    slow.record(a_record())
    await asyncio.sleep(0)
    await slow.close()
    assert (await log.find()).total == 2


async def test_a_full_queue_drops_and_says_so_instead_of_waiting(
    database: Database, log: UsageLog, caplog: pytest.LogCaptureFixture
) -> None:
    writer = UsageWriter(database, limit=5)
    for _ in range(8):
        writer.record(a_record())
    assert (writer.waiting, writer.dropped) == (5, 3)
    with caplog.at_level(logging.WARNING):
        await writer.flush()
    assert "3 requests were not accounted" in caplog.text
    assert (await log.find()).total == 5


async def test_records_outlast_a_database_that_refuses_for_a_while(
    database: Database, log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = database.write, asyncio.Event()

    def refuse() -> object:
        refused.set()
        raise OperationalError("insert", {}, Exception("disk I/O error"))

    monkeypatch.setattr(database, "write", refuse)
    writer = UsageWriter(database, flush_s=0.01)
    await writer.start()
    writer.record(a_record())
    async with asyncio.timeout(5):
        await refused.wait()
        monkeypatch.setattr(database, "write", real)
        while writer.written != 1:
            await asyncio.sleep(0.01)
    await writer.close()
    assert (await log.find()).total == 1


async def test_requests_are_found_by_what_they_were(database: Database, log: UsageLog) -> None:
    await stored(
        database,
        a_record(model_name="a", key_id=1, principal="ann"),
        a_record(model_name="b", status=503, error="gone", at=NOON - timedelta(hours=2)),
        a_record(model_name="b", status=200, error="cut"),
    )

    async def found(**filters: object) -> int:
        return (await log.find(RequestFilter(**filters))).total  # type: ignore[arg-type]

    assert await found(model="a") == 1
    assert await found(key_id=1) == await found(principal="ann") == 1
    assert await found(status=503) == 1
    assert await found(failed=True) == 2
    assert await found(failed=False) == 1
    assert await found(since=NOON - timedelta(hours=1)) == 2
    assert await found(until=NOON - timedelta(hours=1)) == 1
    with pytest.raises(InvalidField):
        await log.find(sort="error; drop table requests")


async def test_totals_add_up_by_model_by_key_and_by_day(database: Database, log: UsageLog) -> None:
    await stored(
        database,
        a_record(),
        a_record(prompt_tokens=None, completion_tokens=None, first_token_s=None, status=500),
        a_record(model_name="other", principal="ann", at=NOON - timedelta(days=1), duration_s=0.5),
    )
    by_model = (await log.totals("model")).items
    assert [(t.name, t.requests, t.errors) for t in by_model] == [("demo", 2, 1), ("other", 1, 0)]
    assert (by_model[0].prompt_tokens, by_model[0].completion_tokens) == (3, 5)
    assert (by_model[0].first_token_s, by_model[0].duration_s) == (0.25, 1.5)
    assert [t.name for t in (await log.totals("key")).items] == ["local", "ann"]
    by_day = await log.totals("day", limit=1)
    assert (by_day.total, by_day.items[0].name, by_day.items[0].requests) == (2, "2026-03-01", 2)
    since = await log.totals("model", RequestFilter(since=NOON))
    assert [t.name for t in since.items] == ["demo"]
    with pytest.raises(InvalidField):
        await log.totals("colour")  # type: ignore[arg-type]


async def test_no_requests_make_empty_totals(log: UsageLog) -> None:
    assert (await log.totals("model")).items == []


async def test_old_requests_are_forgotten_and_young_ones_kept(database: Database, log: UsageLog) -> None:
    old, young = NOON - timedelta(days=91), NOON - timedelta(days=89)
    await stored(database, *(a_record(at=old) for _ in range(CLEAN_BATCH + 1)), a_record(at=young))
    assert await log.forget(90) == CLEAN_BATCH + 1
    assert [item.record.at for item in (await log.find()).items] == [young]


async def test_usage_adds_up_by_person_and_organisation_and_by_key_since_a_time(
    log: UsageLog, database: Database
) -> None:
    writer = UsageWriter(database)
    for user_id, org_id, key_id, hours in ((1, 7, 3, 0), (1, 7, 4, 0), (2, None, 4, 0), (None, 7, 3, 30)):
        at = NOON - timedelta(hours=hours)
        writer.record(a_record(user_id=user_id, org_id=org_id, key_id=key_id, at=at))
    await writer.flush()
    people = {total.name: total.requests for total in (await log.totals("user")).items}
    assert people == {"1": 2, "2": 1, "": 1}
    organisations = {total.name: total.requests for total in (await log.totals("organisation")).items}
    assert organisations == {"7": 3, "": 1}
    assert (await log.find(RequestFilter(org_id=7, user_id=1))).total == 2
    midnight = NOON.replace(hour=0)
    assert await log.used_since(midnight) == {3: (1, 8), 4: (2, 16)}
