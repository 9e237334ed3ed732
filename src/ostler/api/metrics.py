"""Numbers about what is there now, gathered at the moment when Prometheus asks."""

from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry, Gauge, Info
from prometheus_client.exposition import generate_latest

from ostler.api.services import Services
from ostler.core.states import InstanceState


def exposition(rooms: Services) -> bytes:
    """What the rooms have counted, and what is there now, in Prometheus' text format."""
    now = CollectorRegistry()
    Info("ostler_build", "The version that runs.", registry=now).info({"version": rooms.version})
    Gauge("ostler_models", "Models by name.", registry=now).set(len(rooms.models.all()))
    states = Counter(view.state for view in rooms.instances.views())
    instances = Gauge("ostler_instances", "Models by state, those not stopped.", ["state"], registry=now)
    for state in InstanceState:
        if state is not InstanceState.STOPPED:
            instances.labels(state.value).set(states[state])
    return generate_latest(rooms.metrics) + generate_latest(now)
