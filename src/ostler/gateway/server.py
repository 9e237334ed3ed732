"""Details of serving with uvicorn that keep answers quick.

uvicorn writes the status line and headers first and the body after it, two system calls and two
packets for an answer that fits in one. `OneWriteProtocol` (for `uvicorn.Config(http=...)`) holds the
head back until the next write, or until the event loop's next turn where nothing follows at once.
`settle_memory` keeps the garbage collector from stopping every stream for a tenth of a second.
`acceptors` lets new connections in quickly while old ones keep the server busy.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = b"HTTP/1.1 "
ACCEPTORS = 8


def settle_memory() -> None:
    """Take what is loaded by now out of the garbage collector's sight; call it when all has started.

    A full collection walks every object there is, over 100 ms with all our libraries loaded, and every
    stream stands still meanwhile. After this it walks only what was made since.
    """
    gc.collect()
    gc.freeze()


def acceptors(listening: socket.socket) -> list[socket.socket]:
    """The listening socket several times over, for `uvicorn.Server.serve(sockets=...)`.

    uvloop accepts one connection per socket and turn. Under load a turn takes 10 ms, and the last of
    256 clients that come at once would wait for 3 s.
    """
    return [listening, *(listening.dup() for _ in range(ACCEPTORS - 1))]


class _OneWriteTransport:
    """A transport whose writes that begin an answer wait for the rest of it."""

    __slots__ = ("_held", "_inner", "_loop")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        """Write, together with what was held back."""
        if self._held is not None:
            data, self._held = self._held + data, None
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._inner.write(data)

    def close(self) -> None:
        """Write what was held back, then close."""
        self._flush()
        self._inner.close()

    def _flush(self) -> None:
        if self._held is not None:
            data, self._held = self._held, None
            self._inner.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's protocol on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put our transport in place of the bare one."""
        super().connection_made(cast(asyncio.Transport, _OneWriteTransport(transport, self.loop)))
