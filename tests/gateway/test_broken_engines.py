from __future__ import annotations

import asyncio
import socket

import pytest

from tests.gateway.conftest import Seen, Stand

CHAT = "/v1/chat/completions"
OK = '{"model":"demo"}'


async def test_an_engine_that_is_not_there_is_503_and_looked_at(stand: Stand) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        stand.instances.routes.withdraw(1, stand.instances.endpoints[1])
        stand.instances.publish(1, f"http://127.0.0.1:{unused.getsockname()[1]}")
        answer = await stand.post(CHAT, OK)
    assert (answer.status, answer.error["code"]) == (503, "engine_gone")
    assert answer.headers["retry-after"] == "2"
    assert stand.instances.broken == [1]
    assert "127.0.0.1" not in answer.body.decode()


async def test_an_engine_that_dies_over_a_request_is_503_and_the_request_is_not_sent_twice(
    stand: Stand,
) -> None:
    async def die(seen: Seen) -> None:
        seen.receive.__self__.transport.abort()
        await seen.until_gone()

    stand.engine.reply = die
    assert (await stand.post(CHAT, OK)).status == 503
    assert len(stand.engine.seen) == 1
    assert stand.instances.broken == [1]
    assert stand.instances.endpoints[1].in_flight == 0


async def test_an_idle_connection_that_the_engine_closed_is_no_failure(stand: Stand) -> None:
    assert (await stand.post(CHAT, OK)).status == 200
    transport = stand.engine.seen[0].receive.__self__.transport

    async def close_old(seen: Seen) -> None:
        if seen.receive.__self__.transport is transport:
            transport.abort()
            await seen.until_gone()
        else:
            await seen.json(b"{}")

    stand.engine.reply = close_old
    assert (await stand.post(CHAT, OK)).status == 200
    assert not stand.instances.broken


async def test_an_engine_that_says_nothing_is_given_up(stand: Stand) -> None:
    gone = asyncio.Event()

    async def say_nothing(seen: Seen) -> None:
        await seen.until_gone()
        gone.set()

    stand.settings.change(upstream_timeout_s=0.05)
    stand.engine.reply = say_nothing
    answer = await stand.post(CHAT, OK)
    assert (answer.status, answer.error["code"]) == (504, "engine_silent")
    async with asyncio.timeout(5):
        await gone.wait()


async def test_a_refusal_of_our_own_key_is_not_blamed_on_the_client(stand: Stand) -> None:
    async def refuse(seen: Seen) -> None:
        await seen.json(b'{"error":{"message":"Invalid API Key","code":401}}', 401)

    stand.engine.reply = refuse
    assert (await stand.post(CHAT, OK)).status == 502


@pytest.mark.parametrize(
    "said",
    [
        b'{"error":{"code":400,"message":"bad grammar","type":"invalid_request_error"}}',
        b'{"error":{"message":"no","type":"x","param":null,"code":"y"}, "more": 1}',
    ],
)
async def test_an_error_in_the_clients_shape_passes_byte_for_byte(stand: Stand, said: bytes) -> None:
    async def refuse(seen: Seen) -> None:
        await seen.json(said, 400)

    stand.engine.reply = refuse
    answer = await stand.post(CHAT, OK)
    assert (answer.status, answer.body) == (400, said)


@pytest.mark.parametrize(
    ("path", "said", "shaped"),
    [
        (CHAT, b'{"detail":"too long"}', {"message": "too long", "type": "invalid_request_error"}),
        (CHAT, b"plain words", {"message": "plain words", "type": "invalid_request_error"}),
        (CHAT, b'{"error":"words"}', {"message": "words", "type": "invalid_request_error"}),
        (CHAT, b'{"detail":[{"loc":["x"]}]}', {"message": '[{"loc": ["x"]}]'}),
        (CHAT, b"", {"message": "the engine answered 422"}),
        (
            "/v1/messages",
            b'{"error":{"code":400,"message":"bad","type":"invalid_request_error"}}',
            {"message": "bad", "type": "invalid_request_error"},
        ),
    ],
)
async def test_any_other_error_takes_the_shape_that_the_client_knows(
    stand: Stand, path: str, said: bytes, shaped: dict[str, str]
) -> None:
    async def refuse(seen: Seen) -> None:
        await seen.json(said, 422)

    stand.engine.reply = refuse
    answer = await stand.post(path, OK)
    assert answer.status == 422
    assert shaped.items() <= answer.error.items()
    assert (answer.json().get("type") == "error") == (path == "/v1/messages")


async def test_nonsense_from_an_engine_is_a_broken_engine(stand: Stand) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    odd = stand.add("odd", running=False)
    stand.instances.publish(odd.id, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    answer = await stand.post(CHAT, '{"model":"odd"}')
    server.close()
    assert answer.status == 503 and "not HTTP" in answer.error["message"]


async def test_an_error_inside_ostler_is_told_without_its_details(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.add("cold", running=False)
    stand.instances.failure = RuntimeError("a secret of the code")
    stand.instances.may_start.set()
    answer = await stand.post(CHAT, '{"model":"cold"}')
    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    assert answer.headers["x-request-id"] in caplog.text and "a secret of the code" in caplog.text


async def test_a_field_left_out_is_the_anthropic_clients_fault_and_not_the_servers(stand: Stand) -> None:
    async def refuse(seen: Seen) -> None:  # llama.cpp's own words and status
        await seen.json(
            b'{"error":{"code":500,"message":"\'messages\' is required","type":"server_error"}}', 500
        )

    stand.engine.reply = refuse
    answer = await stand.post("/v1/messages", OK)
    assert answer.status == 400
    assert answer.error == {"type": "invalid_request_error", "message": "'messages' is required"}
