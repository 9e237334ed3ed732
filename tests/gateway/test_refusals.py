from __future__ import annotations

import asyncio
import json

import pytest

from ostler.core.errors import Busy, Conflict, EngineError
from tests.gateway.conftest import Seen, Stand

CHAT = "/v1/chat/completions"
OK = '{"model":"demo"}'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b'{"model":', "not valid JSON"),
        (b"model=demo", "not valid JSON"),
        (b"[]", "must be a JSON object, not a list"),
        (b'"demo"', "must be a JSON object, not a text"),
        (b'{"model":"demo","t":NaN}', "NaN is not a JSON value"),
        (b'{"model":"\xff"}', "not UTF-8"),
        (b'{"model":"demo","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b"{}", "does not say which model"),
        (b'{"model":null}', "does not say which model"),
        (b'{"model":7}', "must be a text, not a number"),
        (b'{"model":{"a":1}}', "must be a text, not an object"),
        (b'{"model":""}', "from 1 to 512"),
        (b'{"model":"' + b"x" * 600 + b'"}', "from 1 to 512"),
    ],
)
async def test_a_body_that_cannot_be_right_is_refused_and_says_why(
    stand: Stand, body: bytes, says: str
) -> None:
    answer = await stand.post(CHAT, body)
    assert answer.status == 400
    assert says in answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"
    assert set(answer.error) == {"message", "type", "code", "param"}
    assert not stand.engine.seen


async def test_the_field_that_is_wrong_is_named(stand: Stand) -> None:
    assert (await stand.post(CHAT, '{"model":7}')).error["param"] == "model"


@pytest.mark.parametrize(
    "body",
    [
        b"no boundary here",
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\nendless',
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + b"x" * 5000 + b"\r\n--b--\r\n",
    ],
)
async def test_a_form_that_cannot_be_right_is_refused(stand: Stand, body: bytes) -> None:
    answer = await stand.post(
        "/v1/audio/transcriptions", body, content_type="multipart/form-data; boundary=b"
    )
    assert answer.status == 400


async def test_anthropic_clients_are_refused_in_their_own_shape(stand: Stand) -> None:
    answer = await stand.post("/v1/messages", '{"model":"nobody"}')
    assert answer.status == 404
    assert answer.json()["type"] == "error"
    assert answer.error["type"] == "not_found_error"


async def test_an_archived_model_is_not_there(stand: Stand) -> None:
    stand.add("old", archived=True)
    assert (await stand.post(CHAT, '{"model":"old"}')).status == 404


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_without_being_kept(stand: Stand, chunked: bool) -> None:
    stand.settings.change(request_body_limit_bytes=100_000)
    reader, writer = await asyncio.open_connection(*stand.address)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n"
    if chunked:
        writer.write((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        for _ in range(3):
            writer.write(b"%x\r\n%b\r\n" % (50_000, b"x" * 50_000))
    else:
        writer.write((head + "Content-Length: 104857600\r\n\r\n").encode())
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"}}")
    writer.close()
    assert b" 413 " in answer.split(b"\r\n", 1)[0]
    assert b'"code": "body_too_large"' in answer


async def test_a_client_that_sends_all_of_its_100_mb_first_still_reads_the_refusal(stand: Stand) -> None:
    answer = await stand.post(CHAT, b"x" * 100 * 1024 * 1024)
    assert answer.status == 413
    assert (await stand.post(CHAT, OK)).status == 200


async def test_a_body_at_the_limit_passes(stand: Stand) -> None:
    stand.settings.change(request_body_limit_bytes=100_000)
    body = b'{"model":"demo","x":"' + b"y" * (100_000 - 23) + b'"}'
    assert len(body) == 100_000
    assert (await stand.post(CHAT, body)).status == 200


async def test_a_compressed_body_is_refused(stand: Stand) -> None:
    answer = await stand.post(CHAT, b"\x1f\x8b", content_encoding="gzip")
    assert answer.status == 400 and "Compressed" in answer.error["message"]


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Content-Type", "Content-Encoding"])
async def test_a_header_that_counts_may_not_come_twice(stand: Stand, name: str) -> None:
    request = (
        f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{name}: a\r\n{name}: b\r\nConnection: close\r\n\r\n"
    )
    assert b" 400 " in (await stand.raw(request.encode())).split(b"\r\n", 1)[0]


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/../props",
        "/v1/%2e%2e/props",
        "/v1/..%2fprops",
        "/v1/..%5cprops",
        "/v1//slots",
        "/v1/a/./b",
        "/v1/a%0d%0ab",
        "/v1/%00",
        "/v1/x%3fy",
        "/v1/caf%C3%A9",
    ],
)
async def test_no_path_leads_an_engine_out_of_v1(stand: Stand, path: str) -> None:
    request = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{OK}"
    )
    answer = await stand.raw(request.encode())
    assert b" 404 " in answer.split(b"\r\n", 1)[0]
    assert b'"code": "unknown_route"' in answer
    assert not stand.engine.seen


async def test_a_misspelt_path_is_answered_with_the_near_one(stand: Stand) -> None:
    answer = await stand.post("/v1/chat/completion/", OK)
    assert answer.status == 404 and CHAT in answer.error["message"]


async def test_a_wrong_method_names_the_right_one(stand: Stand) -> None:
    answer = await stand.get(CHAT)
    assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert (await stand.ask("DELETE", "/v1/models/demo")).status == 405


async def test_a_websocket_is_turned_away(stand: Stand) -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await stand.gateway({"type": "websocket", "path": "/v1/realtime"}, receive, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "there is no WebSocket here"}]


async def test_foreign_names_and_foreign_pages_are_kept_out(stand: Stand) -> None:
    for headers in ("Host: evil.example", "Host: localhost\r\nOrigin: https://evil.example"):
        for method in ("GET", "OPTIONS"):
            request = f"{method} /v1/models HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n"
            answer = await stand.raw(request.encode())
            assert b" 403 " in answer.split(b"\r\n", 1)[0]
            assert b"access-control-allow-origin" not in answer


async def test_a_page_of_an_allowed_origin_may_ask_and_read(stand: Stand) -> None:
    origin = "http://localhost:3000"
    asks = await stand.ask(
        "OPTIONS",
        CHAT,
        origin=origin,
        access_control_request_method="POST",
        access_control_request_headers="authorization, x-stainless-os",
    )
    assert asks.status == 204
    assert asks.headers["access-control-allow-origin"] == origin
    assert "POST" in asks.headers["access-control-allow-methods"]
    assert asks.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    answer = await stand.post(CHAT, OK, origin=origin)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)
    refused = await stand.post(CHAT, "{", origin=origin)
    assert refused.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Busy("the queue is full", retry_after_s=4.5), 503, "overloaded_error"),
        (EngineError("demo did not start: no such file"), 502, "api_error"),
        (Conflict("it is not started on demand"), 409, "invalid_request_error"),
    ],
)
async def test_a_model_that_cannot_be_had_says_why(
    stand: Stand, failure: Exception, status: int, kind: str
) -> None:
    cold = stand.add("cold", running=False)
    stand.instances.failure = failure
    stand.instances.may_start.set()
    answer = await stand.post(CHAT, '{"model":"cold"}')
    assert (answer.status, answer.error["type"]) == (status, kind)
    assert ("retry-after" in answer.headers) == (status == 503)
    [record] = await stand.records()
    assert (record.status, record.model_id, record.instance_id) == (status, cold.id, None)
    assert record.error == str(failure)


async def test_a_client_that_never_sends_its_body_is_let_go(stand: Stand) -> None:
    reader, writer = await asyncio.open_connection(*stand.address)
    writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n{{".encode())
    async with asyncio.timeout(5):
        while not stand.gateway._exchanges:
            await asyncio.sleep(0.005)
        for _ in range(6):
            stand.gateway._patience.look()
        answer = await reader.read()
    writer.close()
    assert b" 408 " in answer.split(b"\r\n", 1)[0]


async def test_a_client_that_does_not_take_its_answer_is_let_go(stand: Stand) -> None:
    gone = asyncio.Event()

    async def flood(seen: Seen) -> None:
        leaving = asyncio.create_task(seen.until_gone())
        leaving.add_done_callback(lambda _: gone.set())
        await seen.start(content_type="text/event-stream")
        while not gone.is_set():
            await seen.chunk(b"x" * 60_000)
            await asyncio.sleep(0)

    stand.engine.reply = flood
    async with asyncio.timeout(10):
        async with stand.leaving(CHAT, OK) as reader:
            await reader.readexactly(1)
            while not gone.is_set():
                stand.gateway._patience.look()
                await asyncio.sleep(0.02)
    assert stand.instances.endpoints[1].in_flight == 0


async def test_a_request_before_any_model_exists_is_answered(stand: Stand) -> None:
    stand.index.fill([])
    answer = await stand.post(CHAT, OK)
    assert answer.status == 404 and json.loads(answer.body)["error"]["param"] == "model"
