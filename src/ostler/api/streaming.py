"""Answers that go on: server-sent events and followed logs. All of them end when the server does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse

_NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def text_lines(lines: AsyncIterator[str], closing: asyncio.Event) -> StreamingResponse:
    """Lines as plain text, each sent when it is there."""

    async def chunks() -> AsyncGenerator[bytes]:
        async with aclosing(_until(lines, closing, None)) as going:
            async for line in going:
                if line is not None:
                    yield line.rstrip("\n").encode("utf-8", "replace") + b"\n"

    return StreamingResponse(chunks(), media_type="text/plain; charset=utf-8", headers=_NO_BUFFER)


def pieces(items: AsyncIterator[bytes], closing: asyncio.Event, media_type: str) -> StreamingResponse:
    """Messages of any kind, each sent when it is there."""

    async def chunks() -> AsyncGenerator[bytes]:
        async with aclosing(_until(items, closing, None)) as going:
            async for item in going:
                yield item

    return StreamingResponse(chunks(), media_type=media_type, headers=_NO_BUFFER)


def event_stream(
    messages: AsyncIterator[bytes], closing: asyncio.Event, heartbeat_s: float
) -> StreamingResponse:
    """Server-sent events, with a comment line at the start and whenever nothing happened for a while."""

    async def chunks() -> AsyncGenerator[bytes]:
        async with aclosing(_until(messages, closing, heartbeat_s)) as going:
            async for message in going:
                yield b": still here\n\n" if message is None else message

    return StreamingResponse(chunks(), media_type="text/event-stream", headers=_NO_BUFFER)


def event_message(kind: str, data: Any, event_id: int | None) -> bytes:
    """One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    number = f"id: {event_id}\n" if event_id else ""
    return f"{number}event: {kind}\ndata: {json.dumps(data, default=str)}\n\n".encode()


async def _until(
    items: AsyncIterator[Any], closing: asyncio.Event, heartbeat_s: float | None
) -> AsyncGenerator[Any]:
    """The items until they end or `closing` is set; with a heartbeat, None at the start and in silence."""
    end = asyncio.create_task(closing.wait(), name="stream end")
    following: asyncio.Task[Any] | None = asyncio.create_task(_following(items), name="stream item")
    try:
        if heartbeat_s is not None:
            await asyncio.sleep(0)  # so that the listener hears all that happens after the first line
            yield None
        while following is not None and not closing.is_set():
            done, _ = await asyncio.wait(
                {following, end}, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED
            )
            if following in done:
                ended, item = following.result()
                if ended:
                    return
                following = asyncio.create_task(_following(items), name="stream item")
                yield item
            elif not done:
                yield None
    finally:
        end.cancel()
        if following is not None:
            following.cancel()
            await asyncio.wait({following})
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def _following(items: AsyncIterator[Any]) -> tuple[bool, Any]:
    try:
        return False, await anext(items)
    except StopAsyncIteration:
        return True, None
