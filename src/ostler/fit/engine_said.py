"""What the engine itself says that it will allocate, put in the place of what was counted.

It says whole steps, rounded down. Where what was counted rounds to the same, the finer number stays;
else what it says, rounded up: a need is never lower than what the engine may take.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from ostler.engines.fit_memory import HOST, PARTS, EngineMemory
from ostler.engines.listed_devices import our_id
from ostler.fit.estimated import Estimate
from ostler.fit.estimated import Need as Place
from ostler.fit.need import Need

log = logging.getLogger(__name__)

WEIGHTS_OFF = 2.0
"""Weights stand in the header tensor by tensor: an answer that is further from them is not believed."""


def estimate_by_engine(estimate: Estimate, said: EngineMemory) -> Estimate:
    """The estimate with the engine's own numbers; as it was where they are not of the same devices."""
    parts = _by_our_ids(said)
    places = (*estimate.devices, estimate.host)
    if parts.keys() != {place.id for place in places}:
        return estimate
    weights = sum(part["weights_bytes"] for part in parts.values())
    known = estimate.total("weights_bytes")
    slack = said.step_bytes * len(places)
    if not known / WEIGHTS_OFF - slack <= weights <= known * WEIGHTS_OFF:
        log.warning("the engine says %d bytes of weights where the files hold %d: not used", weights, known)
        return estimate
    *devices, host = (_place(place, parts[place.id], said.step_bytes) for place in places)
    return replace(estimate, devices=tuple(devices), host=host, exactness="engine")


def need_by_engine(need: Need, said: EngineMemory) -> Need:
    """The same for the need of a start, of which only sums are known."""
    parts = _by_our_ids(said)
    if not need.is_known or need.shortened_to is not None or not parts.keys() >= need.by_device.keys():
        return need
    by_device = {}
    for id in sorted(parts):
        overhead = need.overhead.get(id, 0)
        counted, told = need.by_device.get(id, 0) - overhead, sum(parts[id].values())
        by_device[id] = _finer(counted, told, said.step_bytes * len(PARTS)) + overhead
    return replace(need, by_device={id: n for id, n in by_device.items() if n}, exactness="engine")


def _place(place: Place, part: Mapping[str, int], step: int) -> Place:
    finer = {name: _finer(getattr(place, name), part[name], step) for name in PARTS}
    return replace(place, **finer)  # type: ignore[arg-type]


def _finer(counted: int, said: int, step: int) -> int:
    return counted if said <= counted < said + step else said + step


def _by_our_ids(said: EngineMemory) -> dict[str, Mapping[str, int]]:
    """The host is "cpu", "CUDA0" is "cuda:0"; a device of a kind that is not ours keeps its name."""
    return {"cpu" if name == HOST else our_id(name) or name: part for name, part in said.devices.items()}
