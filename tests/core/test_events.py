"""Events are kept in order and told to whoever listens, none twice and none lost."""

import asyncio

import pytest

from ostler.core.database import Database
from ostler.core.events import SUBSCRIBER_QUEUE, EventLog, NewEvent


def happened(number: int, kind: str = "model.created") -> NewEvent:
    return NewEvent(kind, "model", number, f"model-{number}", "somebody", "a cause", {"number": number})


async def test_a_listener_gets_the_kept_events_and_then_the_live_ones(events: EventLog) -> None:
    first = await events.record(happened(1))
    await events.record(happened(2))
    listening = events.listen(after_id=first.id)
    assert (await anext(listening)).subject_name == "model-2"
    waiting = asyncio.ensure_future(anext(listening))
    await events.record(happened(3))
    assert (await waiting).subject_name == "model-3"
    await listening.aclose()


async def test_events_recorded_during_the_replay_come_once(events: EventLog) -> None:
    await events.record(happened(1))
    listening = events.listen(after_id=0)
    assert (await anext(listening)).subject_name == "model-1"
    await events.record(happened(2))  # kept, and already told live
    await events.record(happened(3))
    assert [(await anext(listening)).subject_name for _ in range(2)] == ["model-2", "model-3"]
    await listening.aclose()


async def test_an_event_of_a_transaction_that_fails_is_neither_kept_nor_told(
    events: EventLog, database: Database
) -> None:
    listening = events.listen(after_id=0)
    waiting = asyncio.ensure_future(anext(listening))
    with pytest.raises(RuntimeError):
        async with database.write() as session:
            await events.add(session, happened(1))
            raise RuntimeError("the act failed")
    await events.record(happened(2))
    assert (await waiting).subject_name == "model-2"
    assert [event.subject_name for event in (await events.find())[0]] == ["model-2"]
    await listening.aclose()


async def test_a_listener_that_falls_behind_is_ended_and_can_go_on_from_its_last_event(
    events: EventLog,
) -> None:
    first = await events.record(happened(0))
    slow = events.listen(after_id=first.id)
    waiting = asyncio.ensure_future(anext(slow))
    await events.record(happened(1))
    last_seen = (await waiting).id
    for number in range(SUBSCRIBER_QUEUE + 1):
        events.announce(happened(number, "download.progress"))
    await events.record(happened(2))
    with pytest.raises(StopAsyncIteration):
        for _ in range(SUBSCRIBER_QUEUE + 2):
            await anext(slow)
    again = events.listen(after_id=last_seen)
    assert (await anext(again)).subject_name == "model-2"
    await again.aclose()


async def test_the_history_is_filtered_and_paged(events: EventLog) -> None:
    for number in range(5):
        await events.record(happened(number))
    await events.record(happened(9, "model.deleted"))
    newest, total = await events.find(kind="model.created", limit=2)
    assert total == 5 and [event.data["number"] for event in newest] == [4, 3]
    everything, total = await events.find(kind="model.", limit=10, newest_first=False)
    assert total == 6 and everything[-1].kind == "model.deleted"
    assert (await events.find(subject_name="model-3"))[1] == 1


async def test_closing_the_log_ends_every_listener(events: EventLog) -> None:
    listening = events.listen()
    waiting = asyncio.ensure_future(anext(listening, None))
    await asyncio.sleep(0)
    events.close()
    assert await waiting is None


async def test_old_events_are_forgotten_and_newer_ones_kept(events: EventLog) -> None:
    for number in range(5):
        await events.record(happened(number))
    last = await events.record(happened(6))
    assert await events.forget(last.at, batch=2) == 5
    assert [event.id for event in (await events.find())[0]] == [last.id]
