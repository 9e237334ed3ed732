"""Events as a stream and as history, on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostler.core.events import NewEvent
from ostler.core.principals import Role
from tests.api.conftest import Api, problem
from tests.server import RunningOstler, running_ostler

Lines = AsyncIterator[str]


def happened(kind: str, subject: str = "model", name: str = "tiny") -> NewEvent:
    return NewEvent(kind, subject, 1, name, "a test")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningOstler]:
    async with running_ostler(tmp_path / "data", heartbeat_s=0.05) as running:
        yield running


@asynccontextmanager
async def listening(server: RunningOstler, path: str = "/events", **headers: str) -> AsyncIterator[Lines]:
    """The lines of an event stream, once it has begun."""
    async with asyncio.timeout(30), httpx2.AsyncClient(timeout=30) as client:
        url = f"{server.url}/ostler/v1{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with client.stream("GET", url, headers=named) as answer:
            assert answer.status_code == 200 and answer.headers["content-type"].startswith(
                "text/event-stream"
            )
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith(":")
            yield lines


async def next_event(lines: Lines) -> dict[str, Any]:
    """The next message, heartbeats passed over."""
    found: dict[str, Any] = {}
    async for line in lines:
        if not line and found:
            return found
        name, _, value = line.partition(": ")
        if name:
            found[name] = json.loads(value) if name == "data" else value
    raise AssertionError("the stream ended")


async def test_an_event_is_heard_when_it_happens_with_its_id_and_kind(server: RunningOstler) -> None:
    async with listening(server) as lines:
        recorded = await server.ostler.services.events.record(happened("model.created"))
        heard = await next_event(lines)
    assert (heard["id"], heard["event"]) == (str(recorded.id), "model.created")
    assert heard["data"]["subject_name"] == "tiny" and heard["data"]["id"] == recorded.id


async def test_progress_is_heard_without_an_id(server: RunningOstler) -> None:
    async with listening(server) as lines:
        server.ostler.services.events.announce(happened("job.progress", "job"))
        heard = await next_event(lines)
    assert heard["event"] == "job.progress" and "id" not in heard


@pytest.mark.parametrize("by_header", [True, False])
async def test_one_who_comes_back_gets_what_was_missed_and_nothing_twice(
    server: RunningOstler, by_header: bool
) -> None:
    events = server.ostler.services.events
    ids = [(await events.record(happened(f"model.e{n}"))).id for n in range(3)]
    header = {"Last-Event-ID": str(ids[0])} if by_header else {}
    path = "/events" if by_header else f"/events?last_event_id={ids[0]}"
    async with listening(server, path, **header) as lines:
        assert [(await next_event(lines))["event"] for _ in range(2)] == ["model.e1", "model.e2"]
        await events.record(happened("model.live"))
        assert (await next_event(lines))["event"] == "model.live"


async def test_silence_is_filled_with_comments(server: RunningOstler) -> None:
    async with listening(server) as lines:
        beats = [line async for line in _first(lines, 6) if line]
    assert beats and all(line.startswith(":") for line in beats)


async def test_only_the_kinds_asked_for_are_heard(server: RunningOstler) -> None:
    events = server.ostler.services.events
    async with listening(server, "/events?kind=job.") as lines:
        await events.record(happened("model.created"))
        await events.record(happened("job.queued", "job"))
        assert (await next_event(lines))["event"] == "job.queued"


async def test_events_about_keys_are_for_administrators(server: RunningOstler) -> None:
    services = server.ostler.services
    local = services.access.authenticate(None)
    _, token = await services.keys.create("watcher", Role.MANAGER, local)
    async with listening(server, x_api_key=token) as lines:
        await services.events.record(happened("key.created", "key"))
        await services.events.record(happened("model.created"))
        assert (await next_event(lines))["event"] == "model.created"
    async with httpx2.AsyncClient(headers={"x-api-key": token}) as client:
        kept = (await client.get(f"{server.url}/ostler/v1/history")).json()
    assert [item["kind"] for item in kept["items"]] == ["model.created"]


async def test_streams_end_when_the_server_does(tmp_path: Path) -> None:
    async with running_ostler(tmp_path / "data") as server:
        async with listening(server) as lines:
            server.ostler.begin_shutdown()
            assert [line async for line in lines if line and not line.startswith(":")] == []


async def test_one_who_hangs_up_is_forgotten(server: RunningOstler) -> None:
    events = server.ostler.services.events
    async with listening(server):
        assert len(events._subscribers) == 1
    async with asyncio.timeout(20):
        while events._subscribers:
            await asyncio.sleep(0.01)


async def test_history_is_filtered_paged_and_ordered(api: Api) -> None:
    for number in range(3):
        await api.services.events.record(happened(f"model.e{number}", name=f"m{number}"))
    await api.services.events.record(happened("job.queued", "job"))
    newest = (await api.get("/history", kind="model.", limit=2)).json()
    assert ([item["kind"] for item in newest["items"]], newest["total"]) == (["model.e2", "model.e1"], 3)
    assert (await api.get("/history", sort="id")).json()["items"][0]["kind"] == "model.e0"
    assert (await api.get("/history", subject_name="m1")).json()["total"] == 1
    assert (await api.get("/history", actor="nobody")).json()["total"] == 0
    problem(await api.get("/history", sort="cause"), 422)
    problem(await api.get("/events", last_event_id=-1), 422)
    problem(await api("GET", "/events", headers={"Last-Event-ID": "x"}), 422)


async def _first(lines: Lines, count: int) -> Lines:
    for _ in range(count):
        yield await anext(lines)
