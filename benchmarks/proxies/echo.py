"""The upstream of the measurement: an engine that costs almost nothing.

A raw asyncio protocol on uvloop. A request with `"stream": true` gets 64 SSE chunks, `interval_ms`
apart (both can be said in the body), each carrying the time it was sent; any other gets one JSON answer
of the size of a short chat completion. Run: python -m benchmarks.proxies.echo PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

ANSWER = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1,
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "All is well. " * 12},
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 36, "total_tokens": 48},
    }
).encode()
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
) + ANSWER
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b'data: {"choices":[],"timings":{"cache_n":0,"prompt_n":12,"predicted_n":64}}\n\ndata: [DONE]\n\n'


class Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.data = b""
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop streaming to nobody."""
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            body = self.data[end + 4 : end + 4 + length]
            self.data = self.data[end + 4 + length :]
            if b'"stream": true' in body or b'"stream":true' in body:
                self.task = asyncio.get_running_loop().create_task(self.stream(json.loads(body)))
            else:
                self.transport.write(WHOLE)

    async def stream(self, asked: dict[str, Any]) -> None:
        """Send the chunks, each at its time."""
        loop = asyncio.get_running_loop()
        interval_s = asked.get("interval_ms", 50) / 1000
        begin = loop.time()
        self.transport.write(STREAM_HEAD)
        for number in range(asked.get("chunks", 64)):
            wait_s = begin + number * interval_s - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            event = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}],"sent_ns":%d}\n\n' % (
                time.monotonic_ns()
            )
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST))


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
