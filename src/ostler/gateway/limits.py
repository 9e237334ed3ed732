"""How long an answer may take, by the model's policy and the server's settings."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ostler.core.errors import TimedOut
from ostler.gateway.exchange import Exchange
from ostler.gateway.forward import Forwarder
from ostler.gateway.ports import Destination
from ostler.models.records import Policy


class TookTooLong(TimedOut):
    """The whole answer took longer than the model's policy allows."""

    hint = "Ask for fewer tokens, ask for a stream, or raise the model's policy.request_timeout_s."


class Limits(NamedTuple):
    """Seconds: of silence within an answer, and for the whole of it (None: no limit)."""

    silence_s: float
    whole_s: float | None


def limits_of(policy: Policy, silence_s: float, *, wants_stream: bool) -> Limits:
    """How long a stream may be silent, or any other answer take; else `silence_s` holds."""
    if wants_stream:
        return Limits(policy.stream_timeout_s or silence_s, None)
    whole_s = policy.request_timeout_s
    return Limits(max(silence_s, whole_s or 0.0), whole_s)


async def forward_within(
    forwarder: Forwarder, exchange: Exchange, lease: Destination, limits: Limits
) -> None:
    """Forward a request; leaving it ends it at the engine. Raises TookTooLong and what `forward` raises."""
    if limits.whole_s is None:
        return await forwarder.forward(exchange, lease, limits.silence_s)
    try:
        async with asyncio.timeout(limits.whole_s) as within:
            await forwarder.forward(exchange, lease, limits.silence_s)
    except TimeoutError:
        if not within.expired():
            raise
        name = exchange.model.name if exchange.model else "?"
        text = f"the answer of {name} was not whole within {limits.whole_s:g} s"
        raise TookTooLong(text, model=name) from None
    return None
