from __future__ import annotations

import asyncio

import pytest
from pyreqwest.response import Response

from ostler.core.errors import Busy, EngineError
from tests.gateway.conftest import Answer, ScriptedEngine, Seen, Stand

CHAT = "/v1/chat/completions"
STREAM = '{"model":"demo","stream":true}'


def event(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


async def rest_of(response: Response) -> bytes:
    parts: list[bytes] = []
    async with asyncio.timeout(5):
        while (chunk := await response.body_reader.read_chunk()) is not None:
            parts.append(bytes(chunk))
    return b"".join(parts)


class HeldStream:
    """An engine that sends its next event only when told to."""

    def __init__(self, engine: ScriptedEngine, content_type: str = "text/event-stream") -> None:
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.began = asyncio.Event()
        self.gone = asyncio.Event()
        self.content_type = content_type
        engine.reply = self.reply

    async def reply(self, seen: Seen) -> None:
        await seen.start(content_type=self.content_type)
        self.began.set()
        leaving = asyncio.create_task(seen.until_gone())
        leaving.add_done_callback(lambda _: self.gone.set())
        while (piece := await self.events.get()) is not None:
            await seen.chunk(piece)
        leaving.cancel()
        await seen.end()


async def die(seen: Seen) -> None:
    """Break the connection in the middle, as a killed engine does."""
    seen.receive.__self__.transport.abort()
    await seen.until_gone()


async def test_each_piece_reaches_the_client_before_the_engine_sends_the_next(stand: Stand) -> None:
    held = HeldStream(stand.engine)
    async with stand.streamed("POST", CHAT, STREAM) as response:
        assert response.status == 200
        for word in ("one", "two", "three"):
            held.events.put_nowait(event(word))
            async with asyncio.timeout(5):
                chunk = await response.body_reader.read_chunk()
            assert chunk is not None and bytes(chunk) == event(word)
        held.events.put_nowait(None)
        assert await response.body_reader.read_chunk() is None


async def test_an_answer_that_is_no_event_stream_is_not_held_back_either(stand: Stand) -> None:
    held = HeldStream(stand.engine, "audio/wav")
    held.events.put_nowait(b"first")
    async with stand.streamed("POST", "/v1/audio/speech", '{"model":"demo"}') as response:
        async with asyncio.timeout(5):
            chunk = await response.body_reader.read_chunk()
        assert chunk is not None and bytes(chunk) == b"first"
        held.events.put_nowait(None)


async def test_a_client_that_leaves_a_stream_ends_it_at_the_engine(stand: Stand) -> None:
    held = HeldStream(stand.engine)
    async with stand.streamed("POST", CHAT, STREAM) as response:
        held.events.put_nowait(event("one"))
        await response.body_reader.read_chunk()
    async with asyncio.timeout(5):
        await held.gone.wait()
    await _until_idle(stand)
    [record] = await stand.records()
    assert (record.status, record.streamed) == (499, True)
    assert not stand.instances.broken
    held.events.put_nowait(None)


async def test_a_client_that_leaves_before_the_answer_ends_it_at_the_engine(stand: Stand) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def reply(seen: Seen) -> None:
        arrived.set()
        await seen.until_gone()
        gone.set()

    stand.engine.reply = reply
    async with asyncio.timeout(5):
        async with stand.leaving(CHAT, '{"model":"demo"}'):
            await arrived.wait()
        await gone.wait()
    await _until_idle(stand)
    assert stand.instances.endpoints[1].in_flight == 0


async def test_a_client_that_leaves_while_its_model_starts_gives_up_its_place(stand: Stand) -> None:
    stand.add("cold", running=False)
    async with asyncio.timeout(5):
        async with stand.leaving(CHAT, '{"model":"cold"}'):
            await stand.instances.waiting.wait()
        await stand.instances.gave_up.wait()
    await _until_idle(stand)


async def test_a_request_waits_for_its_model_as_long_as_the_setting_says(stand: Stand) -> None:
    stand.settings.change(request_wait_s=7.5)
    cold = stand.add("cold", running=False)
    asking = asyncio.create_task(stand.post(CHAT, '{"model":"cold"}'))
    async with asyncio.timeout(5):
        await stand.instances.waiting.wait()
        stand.instances.publish(cold.id, stand.engine.url)
        stand.instances.may_start.set()
        assert (await asking).status == 200
    assert stand.instances.asked == [(cold.id, "local", 7.5)]
    assert stand.instances.endpoints[cold.id].in_flight == 0


async def test_a_waiting_stream_gets_signs_of_life_and_then_its_answer(stand: Stand) -> None:
    stand.settings.change(heartbeat_s=0.01)
    cold = stand.add("cold", running=False)
    held = HeldStream(stand.engine)
    async with stand.streamed("POST", CHAT, '{"model":"cold","stream":true}') as response:
        assert response.get_header("content-type") == "text/event-stream"
        for _ in range(2):
            async with asyncio.timeout(5):
                beat = await response.body_reader.read_chunk()
            assert beat is not None and bytes(beat).startswith(b": waiting for cold")
        stand.instances.publish(cold.id, stand.engine.url)
        stand.instances.may_start.set()
        held.events.put_nowait(event("one"))
        held.events.put_nowait(None)
        rest = await rest_of(response)
    assert rest.endswith(b"\n\n" + event("one")) or rest == event("one")


async def test_a_start_that_fails_after_signs_of_life_is_told_in_the_stream(stand: Stand) -> None:
    stand.settings.change(heartbeat_s=0.01)
    stand.add("cold", running=False)
    stand.instances.failure = EngineError("cold did not start: out of memory", hint="Try a shorter context")
    async with stand.streamed("POST", CHAT, '{"model":"cold","stream":true}') as response:
        await response.body_reader.read_chunk()
        stand.instances.may_start.set()
        rest = await rest_of(response)
    last = rest.split(b"\n\n")[-2]
    assert last.startswith(b'data: {"error": {"message": "Cold did not start: out of memory. Try a shorter')


async def test_an_engines_refusal_after_signs_of_life_is_told_in_the_stream(stand: Stand) -> None:
    async def refuse(seen: Seen) -> None:
        await seen.json(b'{"error":{"message":"bad grammar","type":"invalid_request_error"}}', 400)

    stand.engine.reply = refuse
    stand.settings.change(heartbeat_s=0.01)
    cold = stand.add("cold", running=False)
    async with stand.streamed("POST", CHAT, '{"model":"cold","stream":true}') as response:
        await response.body_reader.read_chunk()
        stand.instances.publish(cold.id, stand.engine.url)
        stand.instances.may_start.set()
        rest = await rest_of(response)
    assert b'data: {"error":{"message":"bad grammar"' in rest


async def test_a_quick_failure_of_a_stream_still_has_its_own_status(stand: Stand) -> None:
    stand.add("cold", running=False)
    stand.instances.failure = Busy("all places are taken", retry_after_s=2.2)
    stand.instances.may_start.set()
    answer = await stand.post(CHAT, '{"model":"cold","stream":true}')
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")


async def _cut(stand: Stand, path: str, first: bytes) -> bytes:
    async def reply(seen: Seen) -> None:
        await seen.start(content_type="text/event-stream")
        await seen.chunk(first)
        await cut.wait()
        await die(seen)

    cut = asyncio.Event()
    stand.engine.reply = reply
    async with stand.streamed("POST", path, STREAM) as response:
        chunk = await response.body_reader.read_chunk()
        assert chunk is not None and bytes(chunk) == first
        cut.set()
        return await rest_of(response)


async def test_an_engine_that_dies_in_a_stream_is_told_and_looked_at(stand: Stand) -> None:
    rest = await _cut(stand, CHAT, event("one"))
    assert rest.startswith(b'data: {"error": {"message": "The engine of demo broke off')
    assert rest.endswith(b"\n\n")
    assert stand.instances.broken == [1]
    [record] = await stand.records()
    assert record.status == 503 and record.error is not None and "broke off" in record.error


async def test_an_error_after_half_an_event_begins_an_event_of_its_own(stand: Stand) -> None:
    rest = await _cut(stand, CHAT, b'data: {"choices":')
    assert rest.startswith(b'\n\ndata: {"error"')


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        ("/v1/messages", b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"'),
        ("/v1/responses", b'event: error\ndata: {"message": "The engine'),
    ],
)
async def test_each_kind_of_client_hears_of_a_cut_in_its_own_words(
    stand: Stand, path: str, begins: bytes
) -> None:
    assert (await _cut(stand, path, b"event: x\ndata: {}\n\n")).startswith(begins)


async def test_an_engine_that_dies_in_a_whole_answer_never_looks_like_success(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.start(content_length="1000")
        await seen.chunk(b'{"half":')
        await die(seen)

    stand.engine.reply = reply
    request = (
        b'POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n{"model":"demo"}' % CHAT.encode()
    )
    answer = await stand.raw(request)
    assert b"content-length: 1000" in answer and answer.endswith(b'{"half":')
    assert stand.instances.broken == [1]


async def test_the_counts_of_a_stream_are_kept_though_nobody_asked_for_them(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.start(content_type="text/event-stream")
        await seen.chunk(event("one"))
        await seen.chunk(b'data: {"choices":[],"timings":{"cache_n":3,"prompt_n":4,"predicted_n":5}}\n\n')
        await seen.end(b"data: [DONE]\n\n")

    stand.engine.reply = reply
    answer = await stand.post(CHAT, STREAM)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert stand.engine.seen[0].body == STREAM.encode()
    [record] = await stand.records()
    assert (record.prompt_tokens, record.completion_tokens) == (7, 5)
    assert record.streamed and record.first_token_s is not None
    assert 0 < record.first_token_s <= record.duration_s
    assert (record.model_name, record.principal, record.path) == ("demo", "local", CHAT)


async def test_many_streams_at_once_all_arrive_whole(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.start(content_type="text/event-stream")
        for number in range(20):
            await seen.chunk(event(str(number)))
            await asyncio.sleep(0)
        await seen.end()

    stand.engine.reply = reply
    whole = b"".join(event(str(number)) for number in range(20))
    answers: list[Answer] = await asyncio.gather(*(stand.post(CHAT, STREAM) for _ in range(100)))
    assert {(answer.status, answer.body) for answer in answers} == {(200, whole)}
    assert stand.instances.endpoints[1].in_flight == 0


async def _until_idle(stand: Stand) -> None:
    """Until the gateway has nothing in hand, so that what it writes down is written."""
    async with asyncio.timeout(5):
        while stand.gateway._exchanges:
            await asyncio.sleep(0.005)
