from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from ostler.gateway.server import OneWriteProtocol

Message = dict[str, Any]


class Recording(asyncio.Transport):
    """A transport that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def answered(app: Any, extra: bytes = b"") -> Recording:
    """Serve one request over a recording transport, to its end."""
    done = asyncio.Event()

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        done.set()

    config = uvicorn.Config(counted, http=OneWriteProtocol, ws="none", lifespan="off", log_config=None)
    config.load()
    protocol = OneWriteProtocol(config, ServerState(), {})
    transport = Recording()
    protocol.connection_made(transport)
    protocol.data_received(b"GET / HTTP/1.1\r\nhost: x\r\n" + extra + b"\r\n")
    async with asyncio.timeout(5):
        await done.wait()
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return transport


async def test_a_whole_answer_is_one_write() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    [only] = (await answered(app)).writes
    assert only.startswith(b"HTTP/1.1 200") and only.endswith(b"\r\n\r\nok")


async def test_the_head_of_a_stream_does_not_wait_for_its_first_piece() -> None:
    transport: list[Recording] = []
    headed, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        headed.set()
        await go_on.wait()
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    serving = asyncio.create_task(answered(app))
    await headed.wait()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go_on.set()
    transport.append(await serving)
    head, *pieces = transport[0].writes
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert pieces == [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize("body", [b"ok", b""])
async def test_a_connection_that_ends_with_its_answer_loses_nothing(body: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    transport = await answered(app, b"connection: close\r\n")
    assert b"".join(transport.writes).endswith(b"\r\n\r\n" + body)
    assert transport.closed.is_set()
