"""What a request wants beside its answer: to keep the model, to be served before batch work or after."""

from __future__ import annotations

import asyncio

import pytest

from ostler.instances.keep_alive import KeepAlive
from tests.gateway.conftest import Stand

CHAT = "/v1/chat/completions"


async def test_keep_alive_reaches_the_model_and_the_body_stays_as_it_is(stand: Stand) -> None:
    body = b'{"model":"demo", "keep_alive" :"5m"}'
    assert (await stand.post(CHAT, body)).status == 200
    model = stand.index.get("demo")
    assert stand.instances.endpoints[model.id].keep_alive == KeepAlive(300.0, may_pin=True)
    assert stand.engine.seen[0].body == body
    await stand.post(CHAT, '{"model":"demo"}')
    assert stand.instances.endpoints[model.id].keep_alive == KeepAlive(300.0, may_pin=True)


async def test_a_keep_alive_that_is_no_duration_is_refused(stand: Stand) -> None:
    answer = await stand.post(CHAT, '{"model":"demo","keep_alive":"soon"}')
    assert (answer.status, answer.error["param"]) == (400, "keep_alive")
    assert stand.engine.seen == []


@pytest.mark.parametrize(
    ("field", "headers", "is_batch"),
    [
        ("", {}, False),
        (',"service_tier":"flex"', {}, True),
        (',"service_tier":"auto"', {}, False),
        ("", {"x_ostler_priority": "batch"}, True),
        (',"service_tier":"flex"', {"x_ostler_priority": "Interactive"}, False),
    ],
)
async def test_batch_work_is_told_by_the_header_or_by_the_service_tier(
    stand: Stand, field: str, headers: dict[str, str], is_batch: bool
) -> None:
    model = stand.add("sleeping", running=False)
    asked = asyncio.create_task(stand.post(CHAT, f'{{"model":"sleeping"{field}}}', **headers))
    await stand.instances.waiting.wait()
    stand.instances.publish(model.id, stand.engine.url)
    stand.instances.may_start.set()
    assert (await asked).status == 200
    assert stand.instances.batch == [is_batch]
    assert stand.engine.seen[0].header("x-ostler-priority") == []


async def test_a_priority_that_nobody_knows_is_refused(stand: Stand) -> None:
    answer = await stand.post(CHAT, '{"model":"demo"}', x_ostler_priority="urgent")
    assert answer.status == 400 and "batch or interactive" in answer.error["message"]
