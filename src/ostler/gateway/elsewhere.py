"""Carrying a request to an upstream elsewhere, and to another one where the first cannot be reached."""

from __future__ import annotations

from ostler.core.settings import Settings
from ostler.gateway.errors import EngineGone, EngineRefused, EngineSilent
from ostler.gateway.exchange import Exchange
from ostler.gateway.forward import Forwarder
from ostler.gateway.metrics import GatewayMetrics
from ostler.upstreams.pools import ExternalModel, Pools


async def carry_elsewhere(
    exchange: Exchange,
    model: ExternalModel,
    pools: Pools,
    forwarder: Forwarder,
    metrics: GatewayMetrics,
    settings: Settings,
) -> None:
    """Forward; a request of which nothing arrived goes to the next upstream that serves the model.

    Raises NoUpstream, EngineGone, EngineSilent, EngineRefused.
    """
    tried: list[str] = []
    while True:
        lease = pools.lease(model.name, without=tried)
        tried.append(lease.base_url)
        broken = answered = False
        try:
            await forwarder.forward(exchange, lease, settings.upstream_timeout_s)
            answered = True
            return
        except EngineRefused:
            answered = True
            raise
        except EngineSilent:
            broken = True
            raise
        except EngineGone as gone:
            broken = True
            if gone.reached or not pools.has_other(model.name, tried):
                raise
            metrics.retried(exchange.label)
        finally:
            lease.release(broken=broken, answered=answered)
