"""What a start needs of each device: the one place where an estimate becomes bytes by device.

The scheduler knows `Need` and nothing of how it was found: `need_for` is its only door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ostler.core.sizes import size_text
from ostler.fit.beside import Beside
from ostler.fit.counting import Shape
from ostler.fit.device import Device, kept_back, pooled
from ostler.fit.estimate import Counter, last_true
from ostler.fit.estimated import Exactness
from ostler.fit.ledger import Bytes
from ostler.fit.model_shape import ModelShape
from ostler.fit.placement import usable_gpus
from ostler.fit.vllm_estimate import SHORTENING, VllmCounter
from ostler.fit.vllm_shape import VllmShape

MIB = 1024 * 1024
FIT_TARGET_MIB = 1024
FIT_CONTEXT_TOKENS = 4096
"""The engine's defaults of its options `fit_target` and `fit_ctx`."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes by device that a model will hold.

    `unknown_why` says why the need is not known; then `by_device` is empty and memory does not count.
    `shortened_to` is the context length in tokens where it is less than trained, to fit. `note` is
    what a person should know of how it was counted. `overhead` is the part of `by_device` that is a set
    sum, not counted. `estimated` is what `by_device` was before something better was known. `shared_bytes`
    stand in `by_device` twice: on a GPU that takes from the host's memory, and on the host.
    """

    by_device: Bytes = field(default_factory=dict)
    unknown_why: str | None = None
    shortened_to: int | None = None
    note: str | None = None
    overhead: Bytes = field(default_factory=dict)
    estimated: Bytes = field(default_factory=dict)
    exactness: Exactness = "estimated"
    shared_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it, each byte once."""
        return sum(self.by_device.values()) - self.shared_bytes

    def pooled(self, devices: Sequence[Device]) -> Need:
        """The same as the ledger counts it, where some of these devices have no memory of their own."""
        found = pooled(self.by_device, devices)
        shared = sum(found.values()) - sum(self.by_device.values())
        return replace(self, by_device=found, shared_bytes=shared)

    @property
    def is_known(self) -> bool:
        """False where the files do not say enough."""
        return self.unknown_why is None


def need_of_shape(
    shape: ModelShape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    reserve: Bytes,
    beside: Beside | None = None,
) -> Need:
    """What a model of this shape will need if it has the devices for itself, less what is kept back.

    Where `gpu_layers` is left open, as many go to the GPUs as they can hold. Raises ImpossibleOption.
    """
    by_itself = alone(devices, reserve)
    counter = Counter(shape, options, by_itself, beside)

    def total(tokens: int) -> int:
        return sum(place.total_bytes for place in counter.needs(tokens)[1])

    context, places = counter.needs(options.get("context_length"))
    where = usable_gpus(options, by_itself) or by_itself
    shortened_to = _shortened_to(options, context, where, total)
    if shortened_to is not None:
        _, places = counter.needs(shortened_to)
    by_device = {place.id: n for place in places if (n := place.total_bytes)}
    overhead = {place.id: n for place in places if (n := place.overhead_bytes)}
    return Need(by_device, shortened_to=shortened_to, overhead=overhead, estimated=by_device)


def need_of_vllm(shape: VllmShape, options: Mapping[str, Any], devices: Sequence[Device]) -> Need:
    """What vLLM will take with these options: its share of each GPU that it uses, whatever the model needs.

    Options that are left open are vLLM's defaults. Raises ImpossibleOption.
    """
    counter = VllmCounter(shape, options, devices, choosing=False)
    wanted = options.get("context_length")
    longest = counter.largest_context() if wanted in SHORTENING else None
    shortened_to = longest if longest is not None and longest < shape.trained_context else None
    _, places = counter.needs(shortened_to or wanted)
    too_large = [place for place in places if place.limit_bytes and place.total_bytes > place.limit_bytes]
    note = None
    if too_large:
        least, limit = size_text(too_large[0].total_bytes), size_text(too_large[0].limit_bytes or 0)
        note = f"vLLM will refuse: one request needs {least} on {too_large[0].id}, its share there is {limit}"
    by_device = {place.id: n for place in places if (n := place.total_bytes)}
    return Need(by_device, shortened_to=shortened_to, note=note, estimated=by_device)


def need_for(
    shape: Shape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    reserve: Bytes,
    beside: Beside | None = None,
) -> Need:
    """What a start needs of each device, by the engine that serves the format. Raises ImpossibleOption."""
    if isinstance(shape, VllmShape):
        return need_of_vllm(shape, options, devices)
    return need_of_shape(shape, options, devices, reserve, beside)


def alone(devices: Sequence[Device], reserve: Bytes) -> list[Device]:
    """The devices as they are for a model that has them for itself: free is all that models may have."""
    return [replace(device, free_bytes=capacity_bytes(device, devices, reserve)) for device in devices]


def capacity_bytes(device: Device, devices: Sequence[Device], reserve: Bytes) -> int:
    """What models could have of a device, and of the pool that it takes from."""
    shared = [pool for pool in devices if pool.id in (device.id, device.pool)]
    return max(0, min(one.total_bytes - kept_back(one, reserve) for one in shared))


def _shortened_to(
    options: Mapping[str, Any], longest: int, where: Sequence[Device], total: Callable[[int], int]
) -> int | None:
    """The context length to which llama.cpp comes down by itself; None where it leaves it alone.

    It does so where the context length is left open and the whole does not fit into what the devices
    have in all, less `fit_target` of each, but not below `fit_ctx` (`common_params_fit_impl`).
    """
    least = int(options.get("fit_ctx") or FIT_CONTEXT_TOKENS)
    if options.get("context_length") or options.get("fit") == "off" or longest <= least:
        return None
    targets = options.get("fit_target") or [FIT_TARGET_MIB]
    kept = [targets[min(n, len(targets) - 1)] * MIB for n in range(len(where))]
    budget: int = sum(device.total_bytes for device in where) - sum(kept)

    def fits(tokens: int) -> bool:
        return total(tokens) <= budget

    if fits(longest):
        return None
    return last_true(fits, least, longest)
