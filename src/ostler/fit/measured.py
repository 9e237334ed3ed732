"""What an earlier run took, put in the place of what cannot be counted.

What the header and the options make the engine allocate is counted, and the engine may take all of it
even if a run did not touch it; so a measurement never takes a need below that. What cannot be counted
(the program itself, the driver's context) is what was measured beyond it. See
docs/design/010-footprints.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ostler.fit.estimated import Estimate, Exactness
from ostler.fit.estimated import Need as Place
from ostler.fit.ledger import Bytes
from ostler.fit.need import Need


def is_settled(options: Mapping[str, Any]) -> bool:
    """True where the engine does not choose by itself how much it puts on the GPUs."""
    layers = options.get("gpu_layers")
    return layers not in (None, "auto", -1) and bool(options.get("context_length"))


def need_with(need: Need, measured: Bytes, *, replaces: bool) -> Need:
    """The need of a launch whose last run took this much.

    `replaces`: the measurement takes the place of set sums, even where they are larger.
    """
    if not need.is_known:
        return replace(need, by_device=dict(measured), unknown_why=None, exactness="measured")
    by_device = {}
    for id in sorted({*need.by_device, *measured}):
        total, overhead = need.by_device.get(id, 0), need.overhead.get(id, 0)
        by_device[id] = total - overhead + _overhead(total - overhead, overhead, measured.get(id), replaces)
    exactness = _exactness(by_device, measured, need.exactness)
    return replace(need, by_device=by_device, exactness=exactness)


def estimate_with(estimate: Estimate, measured: Bytes, *, replaces: bool) -> Estimate:
    """The same for the whole answer: what was measured beyond what is counted stands as overhead."""

    def place_with(place: Place) -> Place:
        counted = place.total_bytes - place.overhead_bytes
        seen = measured.get(place.id)
        return replace(
            place,
            overhead_bytes=_overhead(counted, place.overhead_bytes, seen, replaces),
            measured_bytes=seen,
        )

    better = replace(
        estimate,
        devices=tuple(place_with(place) for place in estimate.devices),
        host=place_with(estimate.host),
    )
    totals = {place.id: n for place in (*better.devices, better.host) if (n := place.total_bytes)}
    return replace(better, exactness=_exactness(totals, measured, estimate.exactness))


def _overhead(counted: int, overhead: int, measured: int | None, replaces: bool) -> int:
    if measured is None:
        return overhead
    return max(0 if replaces else overhead, measured - counted)


def _exactness(totals: Bytes, measured: Bytes, otherwise: Exactness) -> Exactness:
    """Measured, where every number is the measured one."""
    return "measured" if all(n == measured.get(id) for id, n in totals.items()) else otherwise
