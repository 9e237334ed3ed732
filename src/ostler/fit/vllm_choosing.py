"""Choosing what a recipe leaves open for vLLM: GPUs, their share, the context, the cache on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ostler.core.errors import Invalid
from ostler.core.sizes import size_text
from ostler.engines.vllm import CPU_KV_CACHE_GIB, SIZES_OF_MEMORY
from ostler.fit.beside import Beside
from ostler.fit.devices import Device
from ostler.fit.ledger import Bytes
from ostler.fit.need import alone
from ostler.fit.placement import usable_gpus
from ostler.fit.reasons import Choice, Chosen
from ostler.fit.vllm_estimate import VllmCounter
from ostler.fit.vllm_shape import VllmShape

GIB = 1 << 30
CPU_CACHE_SHARE = 4
"""On a CPU the cache gets no more than one part in so many of what models may have there."""


def choose_for_vllm(
    shape: VllmShape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    reserve: Bytes,
    beside: Beside | None = None,
) -> Choice:
    """Values for the engine options that are left open; called and answering as `choosing.choose`.

    Devices count with what they have in all, less `reserve`, so that the same hardware gives the same values.
    """
    try:
        return Choice(tuple(_lines(shape, options, alone(devices, reserve))))
    except Invalid as error:
        return Choice(unknown_why=error.message)


def _lines(shape: VllmShape, options: Mapping[str, Any], devices: Sequence[Device]) -> Iterator[Chosen]:
    gpus = usable_gpus(options, devices)
    cache: dict[str, Any] = {}
    if not gpus and not any(options.get(name) is not None for name in SIZES_OF_MEMORY):
        host = max((device.free_bytes for device in devices if device.kind == "cpu"), default=0)
        gib = max(1, min(CPU_KV_CACHE_GIB, host // GIB // CPU_CACHE_SHARE))
        cache = {"cpu_kv_cache_gib": gib}
        yield Chosen("cpu_kv_cache_gib", gib, "left to itself, vLLM takes most of the host's memory")
    found = VllmCounter(shape, {**options, **cache}, devices).at(options.get("context_length"))
    names = ", ".join(gpu.id for gpu in gpus)
    for name, value in found.options.items():
        if name == "tensor_parallel_size":
            weights = size_text(found.total("weights_bytes"))
            yield Chosen(
                name, value, f"the fewest of {names} that hold it: {weights} of weights, and a cache"
            )
        elif name == "context_length":
            trained = shape.trained_context
            yield Chosen(name, value, f"the longest that fits: the model was trained for {trained} tokens")
        else:
            yield Chosen(name, value, "as much as models may have here")
