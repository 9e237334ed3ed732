"""What a start needs of each device: the one place where an estimate becomes bytes by device.

The scheduler knows `Need` and nothing of how it was found. Where the header gives the model's shape the
estimate is by tensor (`need_of_shape`); else it is a plain sum of the facts (`need_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ostler.fit.devices import Device
from ostler.fit.estimate import Counter, gpu_layers, last_true
from ostler.fit.ledger import Bytes
from ostler.fit.model_shape import ModelShape
from ostler.fit.placement import usable_gpus
from ostler.fit.plain import plain_needs
from ostler.library.facts import ModelFacts
from ostler.library.gguf_header import GgufHeader

MIB = 1024 * 1024
FIT_TARGET_MIB = 1024
FIT_CONTEXT_TOKENS = 4096
"""The engine's defaults of its options `fit_target` and `fit_ctx`."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes by device that a model will hold.

    `unknown_why` says why the need is not known; then `by_device` is empty and memory does not count.
    `shortened_to` is the context length in tokens where it is less than trained, to fit. `note` is
    what a person should know of how it was counted.
    """

    by_device: Bytes = field(default_factory=dict)
    unknown_why: str | None = None
    shortened_to: int | None = None
    note: str | None = None

    @property
    def is_known(self) -> bool:
        """False where the files do not say enough."""
        return self.unknown_why is None


def need_of_shape(
    shape: ModelShape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    reserve: Bytes,
    projector: GgufHeader | None = None,
) -> Need:
    """What a model of this shape will need if it has the devices for itself, less what is kept back.

    Where `gpu_layers` is left open, as many go to the GPUs as they can hold. Raises ImpossibleOption.
    """
    alone = [replace(device, free_bytes=capacity_bytes(device, reserve)) for device in devices]
    counter = Counter(shape, options, alone, projector)

    def total(tokens: int) -> int:
        return sum(place.total_bytes for place in counter.needs(tokens)[1])

    context, places = counter.needs(options.get("context_length"))
    where = [device for device in alone if device.kind != "cpu"] or alone
    shortened_to = _shortened_to(options, context, where, total)
    if shortened_to is not None:
        _, places = counter.needs(shortened_to)
    return Need({place.id: n for place in places if (n := place.total_bytes)}, shortened_to=shortened_to)


def need_of(
    facts: ModelFacts | None, options: Mapping[str, Any], devices: Sequence[Device], reserve: Bytes
) -> Need:
    """What a model with these engine options will need, on the devices where it would run.

    Without a GPU, or with no layers on one, that is the host. Layers that the options put on GPUs are
    shared out by the size of the GPUs (as llama.cpp does); where the options leave it open, what the
    GPUs cannot hold falls to the host. Raises ImpossibleOption.
    """
    if facts is None:
        return Need(unknown_why="its files do not say how large it is")
    needs = plain_needs(facts, options)
    if needs.kv_cache_bytes is None or needs.compute_bytes is None:
        return Need(unknown_why="its files do not say how large its cache and buffers are")
    gpus = usable_gpus(options, devices)
    whole = (facts.block_count or 1) + 1  # the output counts as one more layer
    layers = gpu_layers(options, whole)
    where = gpus or [device for device in devices if device.kind == "cpu"]

    def total(tokens: int) -> int:
        return plain_needs(facts, {**options, "context_length": tokens}).total_bytes

    shortened_to = _shortened_to(options, needs.context_length or 0, where, total)
    if shortened_to is not None:
        needs = plain_needs(facts, {**options, "context_length": shortened_to})
    share = 1.0 if layers is None else layers / whole
    on_gpus = int(needs.total_bytes * share) if gpus else 0
    capacity = {gpu.id: max(1, capacity_bytes(gpu, reserve)) for gpu in gpus}
    if layers is None:
        on_gpus = min(on_gpus, sum(capacity.values()))
    shares = {id: on_gpus * size // sum(capacity.values()) for id, size in capacity.items()}
    on_host = needs.total_bytes - on_gpus
    by_device = {id: n for id, n in {**shares, "cpu": on_host}.items() if n}
    return Need(by_device, shortened_to=shortened_to)


def capacity_bytes(device: Device, reserve: Bytes) -> int:
    """What models may have of a device at most: all of it, less what is kept back."""
    return max(0, device.total_bytes - reserve.get(device.id, reserve.get("", 0)))


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
