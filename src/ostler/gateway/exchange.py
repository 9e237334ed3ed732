"""One request on its way: what is known of it so far, and what is written down at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ostler.core.principals import Principal
from ostler.gateway.errors import ClientGone, Dialect
from ostler.gateway.headers import Incoming
from ostler.gateway.metrics import OTHER
from ostler.gateway.ports import Address, Receive, Send, Ticket, Translation
from ostler.gateway.renaming import Renaming
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel

WATCH_AFTER_S = 0.02
"""An answer that is faster than this is not worth a watch over the client."""


class Exchange:
    """One request and its answer. Times are monotonic seconds.

    `asked` is the model's name as the client gave it; `renaming` brings it into the answer where needed.
    `on_client` is true while the client has to do something (send its body, take what it asked for),
    `turns` counts what it did: `patience.py` reads both.
    """

    __slots__ = (
        "address",
        "asked",
        "began",
        "body",
        "dialect",
        "engine_path",
        "error",
        "first_piece_at",
        "gave_up",
        "head",
        "head_sent",
        "incoming",
        "instance_id",
        "label",
        "method",
        "model",
        "on_client",
        "path",
        "principal",
        "query",
        "receive",
        "renaming",
        "response_headers",
        "send",
        "status",
        "streamed",
        "tail",
        "task",
        "ticket",
        "translation",
        "turns",
        "whole",
    )

    def __init__(self, path: str, method: str, query: bytes, receive: Receive, send: Send, began: float):
        self.path = path
        self.method = method
        self.query = query
        self.receive = receive
        self.send = send
        self.began = began
        self.incoming = _NOTHING
        self.principal: Principal | None = None
        self.ticket: Ticket | None = None
        self.asked = ""
        self.model: Model | ExternalModel | None = None
        self.renaming: Renaming | None = None
        self.dialect = Dialect.OPENAI
        self.label = OTHER
        self.body = b""
        self.streamed = False
        self.status = 0
        self.head_sent = False
        self.whole = False
        self.error: str | None = None
        self.translation: Translation | None = None
        self.address: Address | None = None
        self.engine_path = ""
        self.instance_id: int | None = None
        self.first_piece_at: float | None = None
        self.head = b""
        self.tail: list[bytes] = []
        self.response_headers: list[tuple[bytes, bytes]] = []
        self.task = asyncio.current_task()
        self.on_client = True
        self.turns = 0
        self.gave_up = False

    @property
    def request_id(self) -> str:
        """The client's id for it, or the one that we made."""
        return self.incoming.request_id

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the status and the headers; ours (request id, CORS) come last."""
        self.status = status
        self.head_sent = True
        headers += self.response_headers
        headers.append((b"x-request-id", self.incoming.request_id.encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, body: bytes) -> None:
        """Send a piece of the body, more to follow."""
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Send the last piece."""
        self.whole = True
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """A whole answer at once, JSON unless it is empty."""
        if body:
            headers = [*headers, (b"content-type", b"application/json")]
        headers.append((b"content-length", b"%d" % len(body)))
        await self.start(status, headers)
        await self.end(body)


_NOTHING = Incoming("-")


async def while_client_stays(exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and end it as soon as the client has gone. Raises ClientGone then."""
    watch = ClientWatch(exchange.receive, asyncio.get_running_loop())
    try:
        await work
    except asyncio.CancelledError:
        if not watch.gone:
            raise
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        raise ClientGone from None
    finally:
        watch.close()


class ClientWatch:
    """Cancels the task that serves a request as soon as its client has gone.

    Starting to listen costs a task, so it begins after WATCH_AFTER_S: most short answers are over by
    then. `gone` tells a cancellation by the client from one by the server's end.
    """

    __slots__ = ("_handle", "_loop", "_receive", "_serving", "_task", "gone")

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self.gone = False
        self._receive = receive
        self._loop = loop
        self._serving: asyncio.Task[Any] | None = asyncio.current_task(loop)
        self._task: asyncio.Task[None] | None = None
        self._handle = loop.call_later(WATCH_AFTER_S, self._begin)

    def close(self) -> None:
        """Stop watching."""
        self._serving = None
        self._handle.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._watch(), name="client watch")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._serving is not None:
            self.gone = True
            self._serving.cancel()
