"""The gateway as an ASGI application: `/v1/*` is answered here, the rest by the inner application."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol

from ostler.access.browser import check_browser, origin_allowed
from ostler.access.headers import key_in_header
from ostler.core.clock import Clock
from ostler.core.errors import Kind, OstlerError, RateLimited
from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.gateway.bodies import read_asked, read_body, with_defaults, with_model
from ostler.gateway.elsewhere import carry_elsewhere
from ostler.gateway.errors import (
    ClientGone,
    Dialect,
    SilentClient,
    WrongMethod,
    envelope,
    error_body,
    error_headers,
    status_of,
)
from ostler.gateway.exchange import Exchange, while_client_stays
from ostler.gateway.finding import ModelFinder
from ostler.gateway.forward import Forwarder, break_off
from ostler.gateway.headers import HeaderRules
from ostler.gateway.limits import forward_within, limits_of
from ostler.gateway.listing import describe, list_models
from ostler.gateway.metrics import GatewayMetrics
from ostler.gateway.named import asks_for_stream, expect_by_path, is_of_instance, let_in_by_path
from ostler.gateway.patience import Patience
from ostler.gateway.ports import (
    Accounts,
    Address,
    Addresses,
    ASGIApp,
    AutomaticNames,
    Doorkeeper,
    EngineLeases,
    ModelNames,
    Receive,
    RequestLimits,
    Scope,
    Send,
    Translator,
)
from ostler.gateway.routes import MODELS, PREFIX, check_scope, dialect_of, route_of
from ostler.gateway.translated import Translated, TranslatingForwarder
from ostler.gateway.upstream import Upstream
from ostler.gateway.waiting import Leased
from ostler.gateway.wishes import Wishes, read_wishes
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel, Pools
from ostler.usage import RequestRecord, TokenCounts, read_counts

log = logging.getLogger(__name__)

CLIENT_CLOSED = 499
"""What a request is accounted as when its client left first (nginx's number for it)."""

_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-max-age", b"600"),
)


class DoorkeeperWithLimits(Doorkeeper, Protocol):
    """Access as a whole: who asks, and how often they may."""

    @property
    def limiter(self) -> RequestLimits:
        """Counts the requests of each key."""


class Gateway:
    """Takes `/v1/*`, hands everything else (lifespan too) to `inner`.

    `is_inner` names the few paths under `/v1/` that are the inner application's, `translators` the paths of
    other systems that engines answer, `addresses` those that name a model. `settings` gives the settings
    that hold now. Call `start` before the first request and `close` after the last.
    """

    def __init__(
        self,
        inner: ASGIApp,
        *,
        access: DoorkeeperWithLimits,
        models: ModelNames,
        automatic: AutomaticNames,
        instances: EngineLeases,
        pools: Pools,
        usage: Accounts,
        metrics: GatewayMetrics,
        settings: Callable[[], Settings],
        clock: Clock,
        is_inner: Callable[[str], bool] = lambda path: False,
        translators: Mapping[str, Translator] | None = None,
        addresses: Addresses | None = None,
    ) -> None:
        self._inner = inner
        self._is_inner = is_inner
        self._access = access
        self._models = models
        self._automatic = automatic
        self._instances = instances
        self._usage = usage
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self._now = clock.monotonic
        self._rules = HeaderRules()
        self._upstream = Upstream()
        self._forwarder = Forwarder(self._upstream, self._rules, metrics, self._now)
        self._pools = pools
        self._finder = ModelFinder(models, pools, automatic)
        self._translated = Translated(
            translators or {},
            TranslatingForwarder(self._upstream, self._rules, metrics, self._now),
            instances,
            pools,
            metrics,
            settings,
            self._finder.meant,
        )
        self._addresses = addresses
        self._patience = Patience()
        self._exchanges = self._patience.exchanges
        metrics.in_flight = lambda: len(self._exchanges)
        metrics.members = lambda: self._pools.members

    async def start(self) -> None:
        """Begin to look after clients and connections."""
        await self._patience.start()

    async def close(self) -> None:
        """Close the connections to the engines."""
        await self._patience.close()
        self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] in ("http", "websocket"):
            path = scope["path"]
            if (path.startswith(PREFIX) or path == "/v1") and not self._is_inner(path):
                if scope["type"] == "websocket":
                    return await _refuse_websocket(receive, send)
                return await self._serve(scope, receive, send)
            if scope["type"] == "http":
                if path in self._translated.translators:
                    return await self._serve(scope, receive, send)
                if self._addresses is not None and (address := self._addresses.read(scope)) is not None:
                    return await self._serve(scope, receive, send, address)
        return await self._inner(scope, receive, send)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, address: Address | None = None
    ) -> None:
        exchange = Exchange(scope["path"], scope["method"], scope["query_string"], receive, send, self._now())
        exchange.address = address
        self._exchanges.add(exchange)
        try:
            await self._admit(exchange, scope)
        except OstlerError as error:
            await self._refuse(exchange, error)
        except ClientGone:
            self._left(exchange, "the client closed the connection")
        except asyncio.CancelledError:
            if not exchange.gave_up:
                raise
            await self._let_go(exchange)
        except Exception as error:  # the last door: nobody above would tell the client
            log.exception("request %s to %s failed", exchange.request_id, exchange.path)
            if not exchange.head_sent:
                body = envelope(exchange.dialect, 500, "Something went wrong in Ostler; its log says what.")
                await exchange.answer(500, [], body)
            exchange.error = repr(error)
        finally:
            self._exchanges.discard(exchange)
            self._account(exchange)
            if exchange.ticket is not None:
                exchange.ticket.release()

    async def _admit(self, exchange: Exchange, scope: Scope) -> None:
        """Who asks, and may they now? Then on to the model list or to an engine."""
        headers, client = scope["headers"], scope.get("client")
        translator = self._translated.translators.get(exchange.path)
        exchange.dialect = dialect_of(exchange.path) if translator is None else Dialect.OLLAMA
        exchange.incoming = self._rules.read(headers)
        if exchange.incoming.origin is not None:
            self._allow_origin(exchange, exchange.incoming.origin.decode("latin-1"))
        if exchange.method == "OPTIONS":
            return await self._preflight(exchange, headers)
        if exchange.query:
            headers, exchange.query = key_in_header(headers, exchange.query)
        if self._access.has_foreign_keys:
            await self._access.recognise(headers)
        peer = client[0] if client else None
        principal = self._access.admit(headers, exchange.method, peer, trust_origin=True)
        exchange.principal = principal
        self._metrics.let_in(principal)
        if exchange.path.startswith(MODELS) and exchange.path[len(MODELS) :][:1] in ("", "/"):
            return await self._list(exchange)
        exchange.ticket = self._access.limiter.admit(principal)
        self._metrics.within_limits += 1
        if translator is not None:
            return await self._translated.serve(exchange, translator, principal)
        if exchange.address is not None:
            return await self._route_by_path(exchange, exchange.address, principal)
        await self._route(exchange, principal)
        return None

    async def _route_by_path(self, exchange: Exchange, address: Address, principal: Principal) -> None:
        """Carry a request to the engine of the model that its path names, as it came."""
        let_in_by_path(exchange, address, principal)
        model = exchange.model = await self._finder.at_path(address.model, principal)
        expect_by_path(address, model, self._instances)
        exchange.asked = model.name
        settings = self._settings()
        limit = settings.request_body_limit_bytes
        exchange.body = await read_body(exchange.receive, limit, exchange.incoming.content_length)
        exchange.on_client = False
        wants_stream = asks_for_stream(exchange)
        if wants_stream and exchange.ticket is not None:
            exchange.ticket.begin_stream()
        await while_client_stays(exchange, self._carry(exchange, settings, Wishes(), wants_stream))

    async def _route(self, exchange: Exchange, principal: Principal) -> None:
        """Find the model, and carry the request to its engine."""
        route = route_of(exchange.path, exchange.method)
        exchange.label = route.label
        check_scope(principal, route)
        settings = self._settings()
        incoming = exchange.incoming
        limit = settings.request_body_limit_bytes
        exchange.body = await read_body(exchange.receive, limit, incoming.content_length)
        exchange.on_client = False
        asked = read_asked(exchange.body, incoming, exchange.query)
        exchange.asked = asked.model
        exchange.model = model = await self._finder.meant(asked.model, principal)
        if isinstance(model, Model) and is_of_instance(asked.model, model.names):
            exchange.body = with_model(exchange.body, asked, model.name, incoming.content_type)
        wishes = read_wishes(incoming, asked.json, principal)
        wants_stream = False
        if asked.json is not None:
            defaults = model.request_defaults
            if defaults:
                exchange.body = with_defaults(exchange.body, asked.json, defaults)
            stream = asked.json.get("stream")
            wants_stream = (defaults.get("stream") if stream is None else stream) is True
        if wants_stream and exchange.ticket is not None:
            exchange.ticket.begin_stream()
        await while_client_stays(exchange, self._carry(exchange, settings, wishes, wants_stream))

    async def _carry(
        self, exchange: Exchange, settings: Settings, wishes: Wishes, wants_stream: bool
    ) -> None:
        """With a lease, forward; the lease goes back whatever happens."""
        model, principal = exchange.model, exchange.principal
        assert model is not None and principal is not None
        if isinstance(model, ExternalModel):
            return await carry_elsewhere(
                exchange, model, self._pools, self._forwarder, self._metrics, settings
            )
        async with Leased(
            exchange,
            self._instances,
            model,
            principal,
            settings,
            is_batch=wishes.is_batch,
            wants_stream=wants_stream,
            keep_alive=wishes.keep_alive,
        ) as lease:
            limits = limits_of(model.policy, settings.upstream_timeout_s, wants_stream=wants_stream)
            await forward_within(self._forwarder, exchange, lease, limits)
        return None

    async def _list(self, exchange: Exchange) -> None:
        """`GET /v1/models` and `GET /v1/models/{name}`."""
        exchange.label = MODELS
        if exchange.method not in ("GET", "HEAD"):
            raise WrongMethod(f"{MODELS} takes GET, not {exchange.method}", allow="GET, HEAD, OPTIONS")
        assert exchange.principal is not None
        name = exchange.path[len(MODELS) + 1 :]
        if name:
            found = describe(await self._finder.look_at(name, exchange.principal), self._instances)
        else:
            automatic = await self._automatic.list()
            external = self._pools.all()
            found = list_models(self._models, self._instances, exchange.principal, automatic, external)
        await exchange.answer(200, [], json.dumps(found).encode())

    def _allow_origin(self, exchange: Exchange, origin: str) -> None:
        """Let a page of an allowed origin read the answer (CORS)."""
        if origin_allowed(origin, self._settings().allowed_origins):
            exchange.response_headers = [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", b"x-request-id, retry-after"),
                (b"vary", b"Origin"),
            ]
            if self._access.may_read(origin):
                exchange.response_headers.append((b"access-control-allow-credentials", b"true"))

    async def _preflight(self, exchange: Exchange, headers: Any) -> None:
        """A browser asks whether it may ask; others learn which methods there are."""
        given = {name: value.decode("latin-1") for name, value in headers}
        settings = self._settings()
        if settings.is_loopback:
            check_browser(
                given.get(b"host"),
                given.get(b"origin"),
                allowed_hosts=settings.allowed_hosts,
                allowed_origins=settings.allowed_origins,
            )
        answer = [(b"allow", _PREFLIGHT[0][1])]
        if exchange.response_headers:
            wanted = given.get(b"access-control-request-headers", "authorization, content-type")
            answer += _PREFLIGHT
            answer.append((b"access-control-allow-headers", wanted.encode("latin-1")))
        await exchange.answer(204, answer, b"")

    async def _refuse(self, exchange: Exchange, error: OstlerError) -> None:
        """Tell the client what went wrong, in its shape, or within the stream that has begun."""
        if isinstance(error, RateLimited):
            self._metrics.rate_limited(stream=exchange.model is not None)
        elif error.kind is Kind.TIMEOUT and exchange.model is not None:
            self._metrics.timed_out(exchange.model.name, error.code, exchange.label)
        if exchange.model is None:
            self._metrics.blocked(error.code)
        elif status_of(error) >= 500:
            log.info("request %s: %s", exchange.request_id, error.message)
        if exchange.head_sent:
            exchange.status = status_of(error)
            await break_off(exchange, error)
            return
        exchange.error = error.message
        if exchange.address is not None:
            status, body = exchange.address.tell(error)
        else:
            status, body = status_of(error), error_body(exchange.dialect, error)
        await exchange.answer(status, error_headers(error), body)

    def _left(self, exchange: Exchange, why: str) -> None:
        exchange.status = CLIENT_CLOSED
        exchange.error = why
        self._metrics.cancellations += 1

    async def _let_go(self, exchange: Exchange) -> None:
        """The client did nothing for too long. What it did not send, it is told; then it is left."""
        if exchange.task is not None:
            exchange.task.uncancel()
        if not exchange.head_sent:
            error = SilentClient("the rest of the request's body did not come")
            await exchange.answer(408, [(b"connection", b"close")], error_body(exchange.dialect, error))
            exchange.error = error.message
        else:
            self._left(exchange, "the client did not take its answer")

    def _account(self, exchange: Exchange) -> None:
        """Write down what it was."""
        duration_s = self._now() - exchange.began
        self._metrics.finished(exchange.label, exchange.status, duration_s)
        model, principal = exchange.model, exchange.principal
        if model is None or principal is None:
            return
        counts = TokenCounts()
        if exchange.tail:
            counts = read_counts(b"".join(exchange.tail), exchange.head)
            self._metrics.counted(model.name, counts)
            if exchange.ticket is not None:
                exchange.ticket.spend((counts.prompt or 0) + (counts.completion or 0))
        first_token_s = None
        if exchange.streamed and exchange.first_piece_at is not None:
            first_token_s = exchange.first_piece_at - exchange.began
            self._metrics.first_token(exchange.label, first_token_s)
        self._usage.record(
            RequestRecord(
                at=self._clock.now() - timedelta(seconds=duration_s),
                model_id=model.id,
                model_name=model.name,
                instance_id=exchange.instance_id,
                key_id=principal.key_id,
                user_id=principal.user_id,
                org_id=principal.org_id,
                principal=principal.name,
                path=exchange.path[:200],
                status=exchange.status,
                streamed=exchange.streamed,
                prompt_tokens=counts.prompt,
                completion_tokens=counts.completion,
                first_token_s=first_token_s,
                duration_s=duration_s,
                error=exchange.error,
                request_id=exchange.request_id,
            )
        )


async def _refuse_websocket(receive: Receive, send: Send) -> None:
    """There are no WebSockets under /v1."""
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": "there is no WebSocket here"})
