"""Requests of other systems' APIs that engines answer: the same way as any other, in other words.

A dialect says what its requests mean in the words of OpenAI's API and how the answers look in its own
(`ports.Translator`, `ports.Translation`); who asks, limits, leases, accounting and streaming are those of
every request.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from ostler.core.errors import EngineError
from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.gateway.bodies import parse_object, read_body, with_defaults
from ostler.gateway.elsewhere import carry_elsewhere
from ostler.gateway.errors import BadBody, Dialect
from ostler.gateway.exchange import Exchange, while_client_stays
from ostler.gateway.forward import Forwarder, as_bytes, bounded, is_stream
from ostler.gateway.limits import forward_within, limits_of
from ostler.gateway.metrics import GatewayMetrics
from ostler.gateway.ports import Destination, EngineLeases, Translation, Translator
from ostler.gateway.routes import Route, check_scope, expect_post
from ostler.gateway.upstream import Connection, Target
from ostler.gateway.waiting import Leased
from ostler.instances.keep_alive import KeepAlive
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel, Pools

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""An event of an engine that is longer is no event."""
MAX_ANSWER_BYTES = 256 * 1024 * 1024
_ITS_OWN = frozenset({b"content-type", b"accept"})

FindModel = Callable[[str, Principal], Awaitable[Model | ExternalModel]]


class EndlessEvent(EngineError):
    """An engine sends what no answer can be."""


class Translated:
    """Serves the paths of other systems. `find` knows the models, `settings` gives those that hold now."""

    def __init__(
        self,
        translators: Mapping[str, Translator],
        forwarder: TranslatingForwarder,
        instances: EngineLeases,
        pools: Pools,
        metrics: GatewayMetrics,
        settings: Callable[[], Settings],
        find: FindModel,
    ) -> None:
        self.translators = translators
        self._forwarder = forwarder
        self._instances = instances
        self._pools = pools
        self._metrics = metrics
        self._settings = settings
        self._find = find

    async def serve(self, exchange: Exchange, translator: Translator, principal: Principal) -> None:
        """Understand the request, find its model, and answer it."""
        path = exchange.path
        exchange.label = path
        expect_post(path, exchange.method)
        check_scope(principal, Route(path, path, Dialect.OLLAMA, True, translator.scope))
        settings = self._settings()
        incoming = exchange.incoming
        body = await read_body(exchange.receive, settings.request_body_limit_bytes, incoming.content_length)
        exchange.on_client = False
        accept = next((value for name, value in incoming.forward if name == b"accept"), b"")
        asked = parse_object(body, incoming)
        translation = await translator.read(asked, accept.decode("latin-1"), principal, exchange.began)
        exchange.translation = translation
        exchange.model = model = await self._find(translation.model, principal)
        if translation.wants_stream and exchange.ticket is not None:
            exchange.ticket.begin_stream()
        work = self._answer(exchange, translation, model, principal, settings)
        await while_client_stays(exchange, work)

    async def _answer(
        self,
        exchange: Exchange,
        translation: Translation,
        model: Model | ExternalModel,
        principal: Principal,
        settings: Settings,
    ) -> None:
        wish = translation.keep_alive
        keep_alive = None if wish is None else KeepAlive.asked(wish, principal)
        answer = await translation.without_engine(model, principal)
        if answer is not None:
            return await _tell(exchange, translation, answer)
        if isinstance(model, ExternalModel):
            if not _prepare(exchange, translation, model, model.engine, None):
                return await _tell(exchange, translation, translation.end())
            return await carry_elsewhere(
                exchange, model, self._pools, self._forwarder, self._metrics, settings
            )
        async with Leased(
            exchange,
            self._instances,
            model,
            principal,
            settings,
            is_batch=False,
            wants_stream=False,
            keep_alive=keep_alive,
        ) as lease:
            context_length = await self._instances.context_length(model.id)
            if not _prepare(exchange, translation, model, lease.engine, context_length):
                return await _tell(exchange, translation, translation.end())
            limits = limits_of(
                model.policy, settings.upstream_timeout_s, wants_stream=translation.wants_stream
            )
            await forward_within(self._forwarder, exchange, lease, limits)
        return None


def _prepare(
    exchange: Exchange,
    translation: Translation,
    model: Model | ExternalModel,
    engine: str,
    context_length: int | None,
) -> bool:
    """Make the engine's request; False where there is nothing to ask it."""
    call = translation.call(model, engine, context_length)
    if call is None:
        return False
    exchange.engine_path, asked = call
    try:
        exchange.body = json.dumps(asked, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:  # also half a character
        raise BadBody(f"the request holds what JSON does not have: {error}") from None
    if model.request_defaults:
        exchange.body = with_defaults(exchange.body, asked, model.request_defaults)
    return True


async def _tell(exchange: Exchange, translation: Translation, answer: bytes) -> None:
    exchange.on_client = True
    await exchange.start(200, _head(translation, len(answer)))
    await exchange.end(answer)


def _head(translation: Translation, length: int | None = None) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", translation.media_type)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return headers


class TranslatingForwarder(Forwarder):
    """Forwards what a translation makes of a request, and tells the client what it makes of the answer."""

    def _request(self, exchange: Exchange, lease: Destination, target: Target) -> bytes:
        headers = [pair for pair in exchange.incoming.forward if pair[0] not in _ITS_OWN]
        headers.append((b"content-type", b"application/json"))
        return as_bytes(exchange, lease, target, exchange.engine_path.encode(), headers)

    async def _answer(self, exchange: Exchange, connection: Connection) -> None:
        translation = exchange.translation
        assert translation is not None
        if connection.status >= 400:
            return await self._error(exchange, connection, connection.status)
        if not is_stream(connection.headers):
            body = await bounded(connection, MAX_ANSWER_BYTES)
            self._note(exchange, body)
            return await _tell(exchange, translation, translation.end(body))
        exchange.streamed = translation.wants_stream
        async for data in self._events(exchange, connection):
            pieces = translation.event(data)
            if pieces and translation.wants_stream:
                await self._send(exchange, translation, b"".join(pieces))
        last = translation.end()
        if not translation.wants_stream:
            return await _tell(exchange, translation, last)
        await self._send(exchange, translation, last)
        return await exchange.end()

    async def _events(self, exchange: Exchange, connection: Connection) -> AsyncIterator[bytes]:
        """The data of each event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        rest = b""
        while (piece := await connection.read()) is not None:
            self._note(exchange, piece)
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > MAX_EVENT_BYTES:
                raise EndlessEvent(f"the engine sent an event of more than {MAX_EVENT_BYTES} bytes")
            for line in lines:
                if line.startswith((b"data:", b"error:")):
                    yield line.partition(b":")[2].strip()

    async def _send(self, exchange: Exchange, translation: Translation, piece: bytes) -> None:
        exchange.on_client = True
        if not exchange.head_sent:
            await exchange.start(200, _head(translation))
        await exchange.chunk(piece)
        exchange.on_client = False
        exchange.turns += 1
