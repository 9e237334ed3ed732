"""The load: raw connections on uvloop, in a process of its own, so that it costs little and measures well.

Reads one JSON document on stdin, writes one on stdout. Run: python -m benchmarks.proxies.load
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

MESSAGE = "Tell me a story about a horse and its rider, in a few words, please."


def request(port: int, **more: Any) -> bytes:
    """A chat request as an ordinary client sends it."""
    body = json.dumps(
        {"model": "echo", "messages": [{"role": "user", "content": MESSAGE}], "max_tokens": 64, **more}
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"host: 127.0.0.1:{port}\r\n"
        "user-agent: OpenAI/Python 1.0\r\n"
        "accept: application/json\r\n"
        "content-type: application/json\r\n"
        "authorization: Bearer sk-none\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Whole(asyncio.Protocol):
    """One connection that asks again as soon as it was answered, until there is nothing left to ask."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.data = b""
        self.need = -1
        self.sent = 0.0
        self.transport: Any = None
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self.transport = transport
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that ends while something is owed is an error."""
        if not self.over.done():
            self.run.errors += 1
            self.over.set_result(None)

    def ask(self) -> None:
        """Send one request, or end."""
        if not self.run.more():
            self.over.set_result(None)
            self.transport.close()
            return
        self.data, self.need = b"", -1
        self.sent = time.perf_counter()
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self.data += data
        if self.need < 0:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.data[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                self.run.errors += 1
            at = head.find(b"content-length:")
            self.need = 0 if at < 0 else end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        whole = self.data.endswith(b"0\r\n\r\n") if self.need == 0 else len(self.data) >= self.need
        if whole:
            self.run.latencies.append(time.perf_counter() - self.sent)
            self.ask()


class Stream(asyncio.Protocol):
    """One connection that reads one stream and notes when its pieces came."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.times: list[float] = []
        self.last = b""
        self.sent = 0.0
        self.over = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asking comes when all are connected."""
        self.transport = transport

    def ask(self) -> None:
        """Send the request."""
        self.sent = time.perf_counter()
        self.transport.write(self.run.request)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, good or bad."""
        self.finish()

    def finish(self) -> None:
        """Tell that this stream is over."""
        if not self.over.done():
            self.over.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Note the time of a piece."""
        if b"data: " in data:
            self.times.append(time.perf_counter())
        self.last = (self.last + data)[-64:]
        if self.last.endswith(b"0\r\n\r\n"):
            self.finish()


class Run:
    """What all connections of one measurement share."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.left: int = asked.get("requests", 10**9)
        self.until: float = time.perf_counter() + asked.get("seconds", 10**6)
        self.errors = 0
        self.latencies: list[float] = []
        more = {} if asked["mode"] == "whole" else {"stream": True}
        more |= {key: asked[key] for key in ("chunks", "interval_ms") if key in asked}
        self.request = request(asked["port"], **more)

    def more(self) -> bool:
        """True while there is something left to ask."""
        self.left -= 1
        return self.left >= 0 and time.perf_counter() < self.until


def quantile(values: list[float], at: float) -> float:
    """A quantile in milliseconds."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(at * len(ordered)))], 3) if ordered else -1.0


async def whole(run: Run) -> dict[str, Any]:
    """Requests over and over on a number of connections."""
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Whole(run), "127.0.0.1", run.asked["port"])
        for _ in range(run.asked["connections"])
    ]
    await asyncio.wait([protocol.over for _, protocol in made], timeout=600)
    seconds = time.perf_counter() - begin
    return {
        "requests": len(run.latencies),
        "errors": run.errors,
        "per_second": round(len(run.latencies) / seconds, 1),
        "p50_ms": quantile(run.latencies, 0.5),
        "p99_ms": quantile(run.latencies, 0.99),
    }


async def streams(run: Run) -> dict[str, Any]:
    """Many streams at once, begun over half a second as real clients would."""
    loop = asyncio.get_running_loop()
    count = run.asked["connections"]
    made = [
        (await loop.create_connection(lambda: Stream(run), "127.0.0.1", run.asked["port"]))[1]
        for _ in range(count)
    ]
    for protocol in made:
        protocol.ask()
        await asyncio.sleep(run.asked.get("ramp_s", 1.0) / count)
    await asyncio.wait([protocol.over for protocol in made], timeout=run.asked.get("limit_s", 120))
    firsts = [protocol.times[0] - protocol.sent for protocol in made if protocol.times]
    gaps = [b - a for protocol in made for a, b in zip(protocol.times, protocol.times[1:], strict=False)]
    cut = sum(1 for p in made if b"[DONE]" not in p.last and not p.last.endswith(b"0\r\n\r\n"))
    return {
        "streams": count,
        "cut": cut,
        "first_p50_ms": quantile(firsts, 0.5),
        "first_p99_ms": quantile(firsts, 0.99),
        "gap_p50_ms": quantile(gaps, 0.5),
        "gap_p99_ms": quantile(gaps, 0.99),
        "pieces": sum(len(protocol.times) for protocol in made),
    }


async def main() -> None:
    """Read what to do, do it, write what was seen."""
    run = Run(json.load(sys.stdin))
    json.dump(await (whole(run) if run.asked["mode"] == "whole" else streams(run)), sys.stdout)


if __name__ == "__main__":
    uvloop.run(main())
