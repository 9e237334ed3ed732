"""From a lease to the end of the answer: the engine's bytes go to the client as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    ConnectTimeoutError,
    NetworkError,
    RequestError,
    RequestTimeoutError,
)
from pyreqwest.response import Response

from ostler.core.errors import OstlerError
from ostler.gateway.errors import (
    BadHeader,
    EngineGone,
    EngineRefused,
    EngineSilent,
    error_body,
    error_event,
    normalised,
)
from ostler.gateway.exchange import Exchange
from ostler.gateway.headers import HeaderRules
from ostler.gateway.metrics import GatewayMetrics
from ostler.gateway.ports import Lease
from ostler.usage.counts import HEAD_BYTES, TAIL_BYTES

log = logging.getLogger(__name__)

ERROR_BODY_BYTES = 1024 * 1024
CONNECT_TIMEOUT_S = 10.0
POOL_IDLE_S = 3.0
"""llama.cpp closes an idle connection after 5 s; ours must give it up before that."""
RETRY_AFTER_S = 2.0
KEPT_CHUNKS = 4


class Upstream:
    """The one HTTP client to all engines, rebuilt when the silence that is allowed changes."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._silence_s = 0.0
        self._old: list[Client] = []

    def client(self, silence_s: float) -> Client:
        """A client that gives up on an engine that is silent for so long."""
        if self._client is None or silence_s != self._silence_s:
            if self._client is not None:
                self._old.append(self._client)
            self._client = _build(silence_s)
            self._silence_s = silence_s
        return self._client

    async def close(self) -> None:
        """Close every connection."""
        for client in (*self._old, self._client):
            if client is not None:
                await client.close()
        self._old.clear()
        self._client = None


def _build(silence_s: float) -> Client:
    return (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .referer(False)
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .http1_lower_case_headers()
        .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT_S))
        .read_timeout(timedelta(seconds=silence_s))
        .pool_idle_timeout(timedelta(seconds=POOL_IDLE_S))
        .build()
    )


class Forwarder:
    """Sends one exchange to an engine and its answer back."""

    def __init__(
        self, upstream: Upstream, rules: HeaderRules, metrics: GatewayMetrics, now: Callable[[], float]
    ) -> None:
        self._upstream = upstream
        self._rules = rules
        self._metrics = metrics
        self._now = now

    async def forward(self, exchange: Exchange, lease: Lease, target: str, silence_s: float) -> None:
        """Send the request and bring the answer.

        Raises EngineGone, EngineSilent, EngineRefused as long as nothing was sent to the client;
        after that, a failure ends the stream with an error event. A request that found its pooled
        connection closed by the engine is sent once more.
        """
        client = self._upstream.client(silence_s)
        try:
            await self._attempt(exchange, lease, client, target)
        except NetworkError as error:
            if not _found_closed(error):
                raise self._failure(exchange, error, silence_s) from error
            try:
                await self._attempt(exchange, lease, client, target)
            except RequestError as again:
                raise self._failure(exchange, again, silence_s) from again
        except RequestError as error:
            raise self._failure(exchange, error, silence_s) from error
        except BuilderError as error:
            raise BadHeader(f"the request cannot be sent on: {error.message}") from error

    async def _attempt(self, exchange: Exchange, lease: Lease, client: Client, target: str) -> None:
        incoming = exchange.incoming
        headers = [*incoming.forward, ("x-request-id", incoming.request_id)]
        if lease.api_key:
            headers.append(("authorization", f"Bearer {lease.api_key}"))
        builder = client.request(exchange.method, lease.base_url + target).headers(headers)
        if exchange.body:
            builder = builder.body_bytes(exchange.body)
        sent_at = self._now()
        async with builder.streamed_read_buffer_limit(0).build_streamed() as response:
            self._metrics.engine_answered(exchange.label, self._now() - sent_at)
            await self._answer(exchange, response)

    async def _answer(self, exchange: Exchange, response: Response) -> None:
        status = response.status
        if status >= 400 or exchange.head_sent:
            if status >= 400:
                return await self._error(exchange, response, status)
            return await self._pieces(exchange, response)
        headers = self._rules.outgoing(_items(response))
        exchange.streamed = _is_stream(headers)
        if exchange.method != "HEAD" and not exchange.streamed:
            first = await response.body_reader.read_chunk()
            if first is None or _length(headers) == len(first):
                return await self._whole(exchange, status, headers, bytes(first or b""))
            await exchange.start(status, headers)
            await self._piece(exchange, bytes(first))
        else:
            await exchange.start(status, headers)
        return await self._pieces(exchange, response)

    async def _whole(
        self, exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """An answer that came in one piece leaves in one piece."""
        exchange.first_chunk_at = self._now()
        exchange.tail.append(body)
        await exchange.start(status, headers)
        await exchange.end(body)

    async def _pieces(self, exchange: Exchange, response: Response) -> None:
        read = response.body_reader.read_chunk
        while (chunk := await read()) is not None:
            await self._piece(exchange, bytes(chunk))
        await exchange.end()

    async def _piece(self, exchange: Exchange, piece: bytes) -> None:
        if exchange.first_chunk_at is None:
            exchange.first_chunk_at = self._now()
        if len(exchange.head) < HEAD_BYTES:
            exchange.head += piece[:HEAD_BYTES]
        tail = exchange.tail
        tail.append(piece if len(piece) <= TAIL_BYTES else piece[-TAIL_BYTES:])
        if len(tail) > KEPT_CHUNKS:
            del tail[0]
        exchange.on_client = True
        await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
        exchange.on_client = False
        exchange.turns += 1

    async def _error(self, exchange: Exchange, response: Response, status: int) -> None:
        """An engine's error: the status stays, the body takes the shape that the client knows."""
        body = await _bounded(response, ERROR_BODY_BYTES)
        if status == 401:
            raise EngineRefused("the engine refused Ostler's own key")
        shaped = normalised(exchange.dialect, status, body)
        exchange.error = (shaped or body)[:500].decode("utf-8", "replace")
        if exchange.head_sent:
            exchange.status = status
            await exchange.end(error_event(exchange.dialect, shaped or body))
            return
        headers = self._rules.outgoing(_items(response))
        kept = [(n, v) for n, v in headers if n not in (b"content-length", b"content-type")]
        await exchange.answer(status, kept, shaped or body)

    def _failure(self, exchange: Exchange, error: RequestError, silence_s: float) -> Exception:
        """What a broken connection means."""
        name = exchange.model.name if exchange.model else "?"
        self._metrics.engine_failed(name)
        if isinstance(error, RequestTimeoutError) and not isinstance(error, ConnectTimeoutError):
            return EngineSilent(f"the engine of {name} said nothing for {silence_s:g} s", model=name)
        log.warning("request %s to %s broke off: %s", exchange.incoming.request_id, name, _cause(error))
        return EngineGone(
            f"the engine of {name} broke off: {_cause(error)}",
            retry_after_s=RETRY_AFTER_S,
            hint=f"It is restarted if its policy says so; its last words: ostler logs {name}",
        )


async def break_off(exchange: Exchange, error: OstlerError) -> None:
    """End an answer that has already begun, so that the client sees that it is not whole.

    A stream gets an error event. Anything else is left unfinished, which closes the connection.
    """
    exchange.error = error.message
    if exchange.whole or not exchange.streamed:
        return
    body = error_body(exchange.dialect, error)
    last = exchange.tail[-1] if exchange.tail else b"\n\n"
    gap = b"" if last.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
    await exchange.end(gap + error_event(exchange.dialect, body))


def _found_closed(error: NetworkError) -> bool:
    """True when a connection ended before the answer began (it may have been an old one of the pool)."""
    causes = error.details.get("causes") or []
    return any("SendRequest" in cause["message"] for cause in causes)


def _cause(error: RequestError) -> str:
    causes = error.details.get("causes") or []
    return str(causes[-1]["message"]) if causes else error.message


def _items(response: Response) -> list[tuple[str, str]]:
    try:
        return list(response.headers.items())
    except ValueError:
        return _readable_items(response)


def _readable_items(response: Response) -> list[tuple[str, str]]:
    """The headers without those whose values are no text."""
    found: list[tuple[str, str]] = []
    for name in dict.fromkeys(response.headers.keys()):
        try:
            found += [(name, value) for value in response.headers.getall(name)]
        except ValueError:
            log.debug("a header of the engine is no text and was left out: %s", name)
    return found


def _is_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


async def _bounded(response: Response, limit_bytes: int) -> bytes:
    """A body, as far as the limit."""
    parts: list[bytes] = []
    size = 0
    while size < limit_bytes and (chunk := await response.body_reader.read_chunk()) is not None:
        parts.append(bytes(chunk))
        size += len(chunk)
    return b"".join(parts)[:limit_bytes]
