"""The engine of a model for one request: waited for, with signs of life for clients that read a stream."""

from __future__ import annotations

import asyncio

from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.gateway.errors import EngineGone, EngineSilent
from ostler.gateway.exchange import Exchange
from ostler.gateway.ports import EngineLeases, Lease
from ostler.instances.keep_alive import KeepAlive
from ostler.models.records import Model

STREAM_HEAD = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))


class Leased:
    """A lease of the model's engine for as long as a request is served; it goes back whatever happens.

    `keep_alive` is the client's wish. Entering raises what `instances.lease` raises.
    """

    __slots__ = (
        "_exchange",
        "_instances",
        "_is_batch",
        "_keep_alive",
        "_lease",
        "_model",
        "_principal",
        "_settings",
        "_wants_stream",
    )

    def __init__(
        self,
        exchange: Exchange,
        instances: EngineLeases,
        model: Model,
        principal: Principal,
        settings: Settings,
        *,
        is_batch: bool,
        wants_stream: bool,
        keep_alive: KeepAlive | None,
    ) -> None:
        self._exchange = exchange
        self._instances = instances
        self._model = model
        self._principal = principal
        self._settings = settings
        self._is_batch = is_batch
        self._wants_stream = wants_stream
        self._keep_alive = keep_alive
        self._lease: Lease | None = None

    async def __aenter__(self) -> Lease:
        lease: Lease | None = self._instances.try_lease(self._model.id)
        if lease is None:
            lease = await wait_for_lease(
                self._exchange,
                self._instances,
                self._model,
                self._principal,
                self._settings,
                is_batch=self._is_batch,
                wants_stream=self._wants_stream,
            )
        if self._keep_alive is not None:
            lease.keep_alive(self._keep_alive)
        self._exchange.instance_id = lease.instance_id
        self._lease = lease
        return lease

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._lease is not None
        address = self._exchange.address
        is_broken = kind is not None and issubclass(kind, EngineGone | EngineSilent)
        self._lease.release(broken=is_broken, is_use=address is None or not address.is_look)


async def wait_for_lease(
    exchange: Exchange,
    instances: EngineLeases,
    model: Model,
    principal: Principal,
    settings: Settings,
    *,
    is_batch: bool,
    wants_stream: bool,
) -> Lease:
    """A lease, at the latest after `request_wait_s`; whoever leaves early does not stop the start.

    A client that wants a stream gets its headers after the first `heartbeat_s`, and a comment each
    time it has passed again: proxies and clients then know that somebody is there. Before that, a
    failure still has its own status. Raises what `instances.lease` raises.
    """
    waiting = asyncio.ensure_future(
        instances.lease(model.id, principal=principal, timeout_s=settings.request_wait_s, is_batch=is_batch)
    )
    try:
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=settings.heartbeat_s if wants_stream else None)
            if not waiting.done():
                await _beat(exchange, model)
        return waiting.result()
    except BaseException:
        await _give_up(waiting)
        raise


async def _beat(exchange: Exchange, model: Model) -> None:
    if not exchange.head_sent:
        exchange.streamed = True
        await exchange.start(200, list(STREAM_HEAD))
    await exchange.chunk(f": waiting for {model.name} to be ready\n\n".encode())


async def _give_up(waiting: asyncio.Future[Lease]) -> None:
    """Nobody waits any more: a lease that came at the last moment goes back."""
    waiting.cancel()
    await asyncio.wait({waiting})
    if not waiting.cancelled() and waiting.exception() is None:
        waiting.result().release()
