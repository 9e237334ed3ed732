"""The HTTP/1.1 client that speaks to engines: asyncio transports and httptools, nothing else.

It exists because of one property: leaving a request ends it. When a client goes away while an engine
still reads its prompt, the connection is closed at once and the engine stops; pyreqwest 0.15 lets such
a request run on until it has answered. Bodies go out as one write and come back piece by piece, with
back pressure. Redirects, cookies, proxies and compression do not exist here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT_S = 10.0
IDLE_S = 2.0
"""llama.cpp closes an idle connection after 5 s, and each takes one of its few threads until then: ours
gives it up before that, so that health probes and other clients find a free one."""
MAX_IDLE = 256
CONNECTS_AT_ONCE = 128
"""Well below the backlog of llama.cpp's socket (512): what comes above that waits for 1 s."""
HIGH_WATER_BYTES = 256 * 1024
"""So much of an answer may wait for its client before the engine has to wait too."""
MAX_HEAD_BYTES = 64 * 1024


class Broken(Exception):
    """The connection ended before the answer did. `reused`: it had served a request before.

    `connected` is False where there never was a connection: nothing of the request arrived.
    """

    def __init__(
        self, reason: str, *, reused: bool = False, answered: bool = False, connected: bool = True
    ) -> None:
        super().__init__(reason)
        self.connected = connected
        self.reason = reason
        self.reused = reused
        self.answered = answered


class Silent(Exception):
    """The engine said nothing for longer than it may."""


class Target(NamedTuple):
    """Where a base URL leads."""

    host: str
    port: int
    tls: bool
    host_header: bytes
    prefix: bytes


class Connection(asyncio.Protocol):
    """One connection; it carries one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.reused = False
        self.closed = False
        self._parser = httptools.HttpResponseParser(self)
        self._silence_s = 0.0
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False
        self._begin(head_only=False)

    def _begin(self, *, head_only: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.headed = False
        self.complete = False
        self.failure: Exception | None = None
        self._head_only = head_only
        self._keep_alive = False
        self._until_eof = True
        self._head_bytes = 0
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._paused = False

    async def send(self, method: str, request: bytes, silence_s: float) -> None:
        """Write a request and wait for the status and the headers. Raises Broken, Silent."""
        assert self.transport is not None
        self._begin(head_only=method == "HEAD")
        self._busy = True
        self._silence_s = silence_s
        self._heard_at = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(silence_s, self._check_silence)
        self.transport.write(request)
        while not self.headed:
            await self._wait()

    async def read(self) -> bytes | None:
        """What has come of the body since the last read; None at its end. Raises Broken, Silent."""
        while not self._pieces:
            if self.complete:
                return None
            await self._wait()
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._waiting_bytes = 0
        if self._paused and self.transport is not None:
            self._paused = False
            self._heard_at = self.loop.time()
            self.transport.resume_reading()
        return piece

    @property
    def drained(self) -> bool:
        """True when the whole answer is here and read."""
        return self.complete and not self._pieces

    def finish(self) -> bool:
        """The request is over, read to its end or not: True when the connection can serve another."""
        self._busy = False
        if self.complete and self._keep_alive and not self.closed and not self._paused:
            self.idle_since = self.loop.time()
            self.reused = True
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """Close at once, so that the engine sees that nobody waits any more."""
        self.closed = True
        self._forget_timer()
        if self.transport is not None:
            self.transport.abort()

    async def _wait(self) -> None:
        if self.failure is not None:
            raise self.failure
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, failure: Exception) -> None:
        if self.failure is None and not self.complete:
            self.failure = failure
        self._wake()

    def _check_silence(self) -> None:
        self._timer = None
        if not self._busy or self.closed:
            return
        left_s = self._heard_at + self._silence_s - self.loop.time()
        if self._paused:
            left_s = self._silence_s
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._check_silence)
        else:
            self._fail(Silent())
            self.abort()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came; what comes while nobody asked ends the connection."""
        if not self._busy or self.complete:
            self.abort()
            return
        self._heard_at = self.loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(Broken(f"its answer is not HTTP: {error}", answered=True))
            self.abort()
            return
        if self._pieces or self.headed:
            self._wake()
        if self._waiting_bytes > HIGH_WATER_BYTES and self.transport is not None and not self.complete:
            self._paused = True
            self.transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """An answer without a length ends here; any other that is not complete is broken."""
        self.closed = True
        self._forget_timer()
        if not self._busy or self.complete:
            return
        if self.headed and self._until_eof and error is None:
            self.complete = True
            self._wake()
            return
        reason = _reason(error) if error is not None else "the connection was closed"
        answered = self.headed or self._head_bytes > 0
        self._fail(Broken(reason, reused=self.reused, answered=answered))

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer (or of one that nobody asked for: that connection is not kept)."""
        if self.complete:
            self._keep_alive = False
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the headers are too long")
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._until_eof = False
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The status is known; an interim answer (1xx) is passed over."""
        if self.complete:
            self._keep_alive = False
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self.headed = True
        self._keep_alive = self._parser.should_keep_alive() and not self._head_only
        if self._head_only or self.status in (204, 304):
            self.complete = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self.complete:
            return
        self._pieces.append(body)
        self._waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        """The end of the answer, or of an interim one."""
        if self.status < 200 and not self.complete:
            self.headers = []
            self._until_eof = True
            return
        self.complete = True


class Upstream:
    """Idle connections by engine, and how new ones are made."""

    def __init__(self) -> None:
        self._idle: dict[Target, list[Connection]] = {}
        self._targets: dict[str, Target] = {}
        self._connecting: dict[Target, asyncio.Semaphore] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def target(self, base_url: str) -> Target:
        """Where a base URL leads; remembered."""
        found = self._targets.get(base_url)
        if found is None:
            if len(self._targets) > MAX_IDLE:
                self._targets.clear()
            found = self._targets[base_url] = _target(base_url)
        return found

    async def send(self, target: Target, method: str, request: bytes, silence_s: float) -> Connection:
        """Send a request; the connection has the status and the headers. Give it to `done` afterwards.

        Where a connection that had been idle turns out to be closed, the request goes out once more on
        a new one. Raises Broken, Silent.
        """
        connection = self._take_idle(target) or await self._connect(target, or_idle=True)
        try:
            await self._ask(connection, method, request, silence_s)
            return connection
        except Broken as broken:
            if broken.answered or not broken.reused:
                raise
        connection = await self._connect(target)
        await self._ask(connection, method, request, silence_s)
        return connection

    def done(self, target: Target, connection: Connection) -> None:
        """The request is over: keep the connection for the next one, or close it."""
        if connection.finish():
            idle = self._idle.setdefault(target, [])
            if len(idle) < MAX_IDLE:
                idle.append(connection)
            else:
                connection.abort()
            if self._sweeping is None:
                self._sweeping = connection.loop.call_later(IDLE_S, self._sweep)

    def close(self) -> None:
        """Close every idle connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()

    def _sweep(self) -> None:
        """Close what has been idle for too long, and forget engines that are gone."""
        self._sweeping = None
        loop: asyncio.AbstractEventLoop | None = None
        for target, idle in list(self._idle.items()):
            kept = [connection for connection in idle if _is_fresh(connection)]
            for connection in idle:
                if not _is_fresh(connection):
                    connection.abort()
            if kept:
                self._idle[target] = kept
                loop = kept[0].loop
            else:
                del self._idle[target]
                self._connecting.pop(target, None)
        if loop is not None:
            self._sweeping = loop.call_later(IDLE_S / 2, self._sweep)

    async def _ask(self, connection: Connection, method: str, request: bytes, silence_s: float) -> None:
        try:
            await connection.send(method, request, silence_s)
        except BaseException:
            connection.abort()
            raise

    def _take_idle(self, target: Target) -> Connection | None:
        idle = self._idle.get(target)
        while idle:
            connection = idle.pop()
            if _is_fresh(connection):
                return connection
            connection.abort()
        return None

    async def _connect(self, target: Target, *, or_idle: bool = False) -> Connection:
        """A new connection; with `or_idle`, one that became free while others connected."""
        loop = asyncio.get_running_loop()
        try:
            connecting = self._connecting.setdefault(target, asyncio.Semaphore(CONNECTS_AT_ONCE))
            async with asyncio.timeout(CONNECT_TIMEOUT_S), connecting:
                if or_idle and (idle := self._take_idle(target)) is not None:
                    return idle
                _, connection = await loop.create_connection(
                    lambda: Connection(loop), target.host, target.port, ssl=True if target.tls else None
                )
        except TimeoutError:
            raise Broken(f"no connection within {CONNECT_TIMEOUT_S:g} s", connected=False) from None
        except OSError as error:
            raise Broken(_reason(error), connected=False) from error
        return connection


def _reason(error: Exception) -> str:
    """Why, in the system's words, which never name an address."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else "it cannot be reached"


def _is_fresh(connection: Connection) -> bool:
    return not connection.closed and connection.loop.time() - connection.idle_since < IDLE_S


def _target(base_url: str) -> Target:
    parts = urlsplit(base_url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    port = parts.port or (443 if tls else 80)
    return Target(host, port, tls, parts.netloc.encode("latin-1"), parts.path.rstrip("/").encode("latin-1"))


def serialise(
    method: str, target: Target, path: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bytes:
    """The request as bytes. Raises ValueError if any part of it would begin a new line."""
    lines = [b"%b %b%b HTTP/1.1" % (method.encode(), target.prefix, path), b"host: " + target.host_header]
    lines += [name + b": " + value for name, value in headers]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d" % len(body))
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise ValueError("a header or the address holds a line break")
    return b"".join((head, b"\r\n\r\n", body))
