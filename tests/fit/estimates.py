"""Estimates in one call, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ostler.fit.beside import Beside
from ostler.fit.device import Device
from ostler.fit.estimate import Counter
from ostler.fit.estimated import Estimate
from ostler.fit.model_shape import ModelShape


def estimate(
    shape: ModelShape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    *,
    beside: Beside | None = None,
) -> Estimate:
    """What a model with these canonical engine options needs on these devices."""
    return Counter(shape, options, devices, beside).at(options.get("context_length"))


def sweep(
    shape: ModelShape, options: Mapping[str, Any], devices: Sequence[Device], contexts: Sequence[int]
) -> tuple[Estimate, ...]:
    """The same for several context lengths in tokens."""
    counter = Counter(shape, options, devices, None)
    return tuple(counter.at(context) for context in contexts)
