"""Waiting for a model to be ready, with signs of life for clients that read a stream."""

from __future__ import annotations

import asyncio

from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.gateway.exchange import Exchange
from ostler.gateway.ports import EngineLeases, Lease
from ostler.models.records import Model

STREAM_HEAD = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))


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
