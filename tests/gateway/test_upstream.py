from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from ostler.gateway.upstream import HIGH_WATER_BYTES, Broken, Silent, Target, Upstream, serialise

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speak: Speak) -> AsyncIterator[tuple[Upstream, Target]]:
    """A server that says the bytes of a test, and a client for it."""
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    upstream = Upstream()
    try:
        yield upstream, upstream.target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        upstream.close()
        server.close()


async def ask(
    upstream: Upstream, target: Target, method: str = "POST", silence_s: float = 5
) -> tuple[int, bytes]:
    """One request, its status and its whole body."""
    body = b"{}" if method == "POST" else b""
    request = serialise(method, target, b"/v1/x", [(b"a", b"b")], body)
    async with asyncio.timeout(10):
        connection = await upstream.send(target, method, request, silence_s)
        try:
            parts = []
            while (piece := await connection.read()) is not None:
                parts.append(piece)
            return connection.status, b"".join(parts)
        finally:
            upstream.done(target, connection)


def saying(answer: bytes, *, close: bool = False) -> Speak:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"content-length: 2" in head:
                    await reader.readexactly(2)
                writer.write(answer)
                if close:
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    return speak


@pytest.mark.parametrize(
    ("answer", "close", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False, (200, b"hello")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, (200, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, (204, b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: v\r\n\r\n",
            False,
            (200, b"hello"),
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", True, (200, b"until the end")),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", True, (200, b"ok")),
        (b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\nok", False, (201, b"ok")),
    ],
)
async def test_every_way_to_end_an_answer_is_understood(
    answer: bytes, close: bool, seen: tuple[int, bytes]
) -> None:
    async with speaking(saying(answer, close=close)) as (upstream, target):
        for _ in range(3):
            assert await ask(upstream, target) == seen


async def test_a_head_request_has_no_body_whatever_its_length_says() -> None:
    async with speaking(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")) as (upstream, target):
        assert await ask(upstream, target, "HEAD") == (200, b"")
        assert await ask(upstream, target, "HEAD") == (200, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ],
)
async def test_an_answer_that_is_cut_or_no_http_is_never_taken_for_whole(answer: bytes) -> None:
    async with speaking(saying(answer, close=True)) as (upstream, target):
        with pytest.raises(Broken):
            await ask(upstream, target)


async def test_silence_ends_a_request_only_when_it_lasts() -> None:
    drips = 6

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        for _ in range(drips):
            writer.write(b".")
            await asyncio.sleep(0.1)
        await reader.read()
        writer.close()

    async with speaking(drip) as (upstream, target):
        request = serialise("POST", target, b"/", [], b"{}")
        connection = await upstream.send(target, "POST", request, 0.3)
        got = b""
        with pytest.raises(Silent):
            while (piece := await connection.read()) is not None:
                got += piece
        upstream.done(target, connection)
        assert got == b"." * drips


async def test_leaving_a_request_closes_its_connection_at_once() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        arrived.set()
        with suppress(ConnectionResetError):
            await reader.read()
        gone.set()
        writer.close()

    async with speaking(listen) as (upstream, target):
        asking = asyncio.create_task(ask(upstream, target))
        async with asyncio.timeout(5):
            await arrived.wait()
            asking.cancel()
            await gone.wait()


async def test_an_engine_has_to_wait_for_a_client_that_reads_slowly() -> None:
    sent = 0
    stuck = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.set_write_buffer_limits(high=65536)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                sent += 65536
                async with asyncio.timeout(1):
                    await writer.drain()
        except TimeoutError:
            stuck.set()
        except ConnectionError:
            pass
        writer.close()

    async with speaking(flood) as (upstream, target):
        request = serialise("POST", target, b"/", [], b"{}")
        connection = await upstream.send(target, "POST", request, 5)
        async with asyncio.timeout(10):
            await stuck.wait()
        assert sent < 100 * HIGH_WATER_BYTES
        assert await connection.read()
        upstream.done(target, connection)


async def test_a_connection_is_used_again_and_what_comes_unasked_ends_it() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + extra)
        except asyncio.IncompleteReadError:
            writer.close()

    extra = b""
    async with speaking(talk) as (upstream, target):
        for _ in range(3):
            assert await ask(upstream, target) == (200, b"ok")
        assert connections == 1
        extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
        assert await ask(upstream, target) == (200, b"ok")
        extra = b""
        assert await ask(upstream, target) == (200, b"ok")
        assert connections == 2


@pytest.mark.parametrize(
    ("path", "headers"),
    [(b"/v1/x\r\nHost: evil", []), (b"/v1/x", [(b"a", b"b\r\nc: d")]), (b"/v1/x", [(b"a", b"b\nc")])],
)
def test_nothing_a_client_sends_can_begin_a_line_of_its_own(
    path: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    target = Upstream().target("http://127.0.0.1:1/base/")
    with pytest.raises(ValueError, match="line break"):
        serialise("POST", target, path, headers, b"{}")


def test_a_request_is_written_with_its_base_path_and_length() -> None:
    target = Upstream().target("http://engine:81/base/")
    assert serialise("POST", target, b"/v1/x?y=1", [(b"a", b"b")], b"{}") == (
        b"POST /base/v1/x?y=1 HTTP/1.1\r\nhost: engine:81\r\na: b\r\ncontent-length: 2\r\n\r\n{}"
    )
