"""The yardstick: the least that uvicorn, plain ASGI and pyreqwest can do to forward a request.

No key, no route, no accounting: every body goes to the one upstream, every byte comes back.
Run: python -m benchmarks.proxies.bare PORT UPSTREAM_URL
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from pyreqwest.client import Client, ClientBuilder


class Bare:
    """An ASGI application that forwards everything."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.client: Client = ClientBuilder().no_proxy().build()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward one request."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = (
            self.client.request(scope["method"], self.upstream + scope["path"])
            .header("content-type", "application/json")
            .body_bytes(body)
            .streamed_read_buffer_limit(0)
            .build_streamed()
        )
        async with request as response:
            headers = [
                (name.encode(), value.encode())
                for name, value in response.headers.items()
                if name in ("content-type", "content-length")
            ]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            read = response.body_reader.read_chunk
            while (chunk := await read()) is not None:
                await send({"type": "http.response.body", "body": bytes(chunk), "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def main(port: int, upstream: str) -> None:
    """Serve for ever."""
    uvicorn.run(
        Bare(upstream),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="off",
        backlog=4096,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
