"""From a lease to the end of the answer: the engine's bytes go to the client as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from shlex import quote

from ostler.core.errors import OstlerError
from ostler.gateway.engine_errors import retell
from ostler.gateway.errors import (
    BadHeader,
    EngineGone,
    EngineRefused,
    EngineSilent,
    error_body,
    error_event,
)
from ostler.gateway.exchange import Exchange
from ostler.gateway.headers import HeaderRules
from ostler.gateway.metrics import GatewayMetrics
from ostler.gateway.ports import Destination
from ostler.gateway.renaming import Renaming, without_length
from ostler.gateway.upstream import Broken, Connection, Silent, Target, Upstream, serialise
from ostler.upstreams.pools import ExternalModel
from ostler.usage.counts import HEAD_BYTES, TAIL_BYTES

log = logging.getLogger(__name__)

ERROR_BODY_BYTES = 1024 * 1024
RETRY_AFTER_S = 2.0
KEPT_PIECES = 4


class Forwarder:
    """Sends one exchange to an engine and its answer back."""

    def __init__(
        self, upstream: Upstream, rules: HeaderRules, metrics: GatewayMetrics, now: Callable[[], float]
    ) -> None:
        self._upstream = upstream
        self._rules = rules
        self._metrics = metrics
        self._now = now

    async def forward(self, exchange: Exchange, lease: Destination, silence_s: float) -> None:
        """Send the request and bring the answer; leaving this ends the request at the engine.

        Raises EngineGone, EngineSilent, EngineRefused, whether the answer has begun or not.
        """
        target = self._upstream.target(lease.base_url)
        self._metrics.engine_chosen(exchange.label, lease.engine, lease.base_url)
        request = self._request(exchange, lease, target)
        sent_at = self._now()
        try:
            connection = await self._upstream.send(target, exchange.method, request, silence_s)
            try:
                waited_s = self._now() - sent_at
                self._metrics.engine_answered(exchange.label, waited_s, lease.engine, lease.base_url)
                if lease.served_name is not None and exchange.asked not in ("", lease.served_name):
                    exchange.renaming = Renaming(lease.served_name, exchange.asked)
                await self._answer(exchange, connection)
                if connection.status < 500:
                    self._metrics.engine_succeeded(exchange.label, lease.base_url)
            finally:
                self._upstream.done(target, connection)
        except Broken as broken:
            raise self._gone(exchange, broken) from broken
        except Silent as silent:
            name = self._count_failure(exchange)
            raise EngineSilent(
                f"the engine of {name} said nothing for {silence_s:g} s", model=name
            ) from silent

    def _request(self, exchange: Exchange, lease: Destination, target: Target) -> bytes:
        """The request for the engine: the client's headers that may cross, and our own key."""
        path = (exchange.engine_path or exchange.path).encode()
        if exchange.query:
            path += b"?" + exchange.query
        return as_bytes(exchange, lease, target, path, exchange.incoming.forward)

    async def _answer(self, exchange: Exchange, connection: Connection) -> None:
        status = connection.status
        if status >= 400:
            return await self._error(exchange, connection, status)
        headers = self._rules.outgoing(connection.headers)
        if exchange.head_sent:
            return await self._pieces(exchange, connection)
        if exchange.renaming is not None:
            headers = without_length(headers)
        exchange.streamed = is_stream(headers)
        if not exchange.streamed:
            piece = await connection.read()
            if piece is None or connection.drained:
                return await self._whole(exchange, status, headers, piece or b"")
            await exchange.start(status, headers)
            await self._piece(exchange, piece)
        else:
            await exchange.start(status, headers)
        return await self._pieces(exchange, connection)

    async def _whole(
        self, exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """An answer that came in one piece leaves in one piece."""
        exchange.tail.append(body)
        if exchange.renaming is not None:
            body = exchange.renaming.feed(body) + exchange.renaming.rest()
            headers.append((b"content-length", b"%d" % len(body)))
        exchange.on_client = True
        await exchange.start(status, headers)
        await exchange.end(body)

    async def _pieces(self, exchange: Exchange, connection: Connection) -> None:
        read = connection.read
        while (piece := await read()) is not None:
            await self._piece(exchange, piece)
        await exchange.end(exchange.renaming.rest() if exchange.renaming is not None else b"")

    async def _piece(self, exchange: Exchange, piece: bytes) -> None:
        self._note(exchange, piece)
        if exchange.renaming is not None:
            piece = exchange.renaming.feed(piece)
            if not piece:
                return
        exchange.on_client = True
        await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
        exchange.on_client = False
        exchange.turns += 1

    def _note(self, exchange: Exchange, piece: bytes) -> None:
        """Keep the beginning and the end of an answer, where the counts are."""
        if exchange.first_piece_at is None:
            exchange.first_piece_at = self._now()
        if len(exchange.head) < HEAD_BYTES:
            exchange.head += piece[:HEAD_BYTES]
        tail = exchange.tail
        tail.append(piece if len(piece) <= TAIL_BYTES else piece[-TAIL_BYTES:])
        if len(tail) > KEPT_PIECES:
            del tail[0]

    async def _error(self, exchange: Exchange, connection: Connection, status: int) -> None:
        """An engine's error, in the words and the shape that the client knows."""
        body = await bounded(connection, ERROR_BODY_BYTES)
        if status == 401:
            raise EngineRefused("the engine refused Ostler's own key")
        retold = retell(exchange.dialect, status, body)
        told = retold.body or body
        exchange.error = told[:500].decode("utf-8", "replace")
        if exchange.head_sent:
            exchange.status = retold.status
            await exchange.end(error_event(exchange.dialect, told))
            return
        headers = self._rules.outgoing(connection.headers)
        kept = [(n, v) for n, v in headers if n not in (b"content-length", b"content-type")]
        if retold.retry_after_s is not None:
            kept = [(n, v) for n, v in kept if n != b"retry-after"]
            kept.append((b"retry-after", b"%d" % retold.retry_after_s))
        await exchange.answer(retold.status, kept, told)

    def _gone(self, exchange: Exchange, broken: Broken) -> EngineGone:
        name = self._count_failure(exchange)
        log.warning("request %s: the engine of %s broke off: %s", exchange.request_id, name, broken.reason)
        ours = not isinstance(exchange.model, ExternalModel)
        hint = f"It is restarted if its policy says so. Its last words: ostler logs {quote(name)}"
        error = EngineGone(
            f"the engine of {name} broke off: {broken.reason}",
            retry_after_s=RETRY_AFTER_S,
            hint=hint if ours else "It is an upstream elsewhere: GET /ostler/v1/upstreams",
        )
        error.reached = broken.connected
        return error

    def _count_failure(self, exchange: Exchange) -> str:
        name = exchange.model.name if exchange.model else "?"
        self._metrics.engine_failed(name)
        return name


async def break_off(exchange: Exchange, error: OstlerError) -> None:
    """End an answer that has already begun, so that the client sees that it is not whole.

    A stream gets an error event. Anything else is left unfinished, which closes the connection.
    """
    exchange.error = error.message
    if exchange.whole or not exchange.streamed:
        return
    body = error_body(exchange.dialect, error)
    if exchange.translation is not None:
        await exchange.end(exchange.translation.framed(body))
        return
    last = exchange.tail[-1] if exchange.tail else b"\n\n"
    gap = b"" if last.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
    await exchange.end(gap + error_event(exchange.dialect, body))


def as_bytes(
    exchange: Exchange, lease: Destination, target: Target, path: bytes, headers: list[tuple[bytes, bytes]]
) -> bytes:
    """A request with the engine's own key and our id. Raises BadHeader."""
    headers = [*headers, (b"x-request-id", exchange.request_id.encode())]
    if lease.api_key:
        headers.append((b"authorization", b"Bearer " + lease.api_key.encode()))
    try:
        return serialise(exchange.method, target, path, headers, exchange.body)
    except ValueError as error:
        raise BadHeader(f"the request cannot be sent on: {error}") from None


def is_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    """True for server-sent events."""
    for name, value in headers:
        if name == b"content-type":
            return value[:17].lower() == b"text/event-stream"
    return False


async def bounded(connection: Connection, limit_bytes: int) -> bytes:
    """A body, as far as the limit."""
    parts: list[bytes] = []
    size = 0
    while size < limit_bytes and (piece := await connection.read()) is not None:
        parts.append(piece)
        size += len(piece)
    return b"".join(parts)[:limit_bytes]
