"""Choosing what a recipe leaves open, so that the model fits the hardware it is on.

What somebody has set is never touched, and the free memory of the moment plays no part: the same recipe on
the same hardware always gets the same values. The order of the steps, and why it is this one, is in
docs/design/011-auto-configuration.md. This is llama.cpp's table of choices; another engine brings its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ostler.core.errors import Invalid
from ostler.fit.beside import Beside
from ostler.fit.counting import LLAMACPP, VLLM, Shape
from ostler.fit.devices import Device
from ostler.fit.estimate import Counter, gpu_layers, last_true
from ostler.fit.ledger import Bytes
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import ModelShape
from ostler.fit.need import FIT_CONTEXT_TOKENS, FIT_TARGET_MIB, MIB, alone, capacity_bytes
from ostler.fit.placement import usable_gpus
from ostler.fit.reasons import Choice, Chosen, Try, Why
from ostler.fit.vllm_choosing import choose_for_vllm

STEP_TOKENS = 1024
FLOOR_TOKENS = 8192
"""Down to here the context is shortened before anything else gives way."""
HOST_SHARE = 2
"""One part in so many of the host's memory is filled for a longer context: other programs live there too."""
GPU_MARGIN_SHARE = 8
"""No more than one part in so many of a GPU is left for what is not counted; `fit_target` bytes at most."""
QUANTIZED = "q8_0"
_KV_TYPES = ("kv_cache_type", "kv_cache_type_k", "kv_cache_type_v")
OPEN_TOGETHER: tuple[tuple[str, ...], ...] = (
    ("gpu_layers", "tensor_split", "n_cpu_moe", "tensor_parallel_size"),
    ("context_length", "parallel_slots", "gpu_memory_utilization"),
)
"""Options that decide together what goes where, and how much is asked for."""
_EXPERT_MOVERS = ("cpu_moe", "n_cpu_moe", "n_cpu_ffn", "override_tensor")
MAX_KEPT = 64


def choose(
    shape: ModelShape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    reserve: Bytes,
    beside: Beside | None = None,
) -> Choice:
    """Values for the engine options that are left open. Never raises: it says why nothing was chosen.

    `options` are canonical and hold what somebody has set; `devices` count with what they have in all, less
    `reserve` (bytes by device).
    """
    if options.get("fit") == "on":
        return Choice(unknown_why="the option fit leaves it to the engine")
    if not shape.known:
        return Choice(unknown_why=f"the architecture '{shape.architecture.name}' is not known")
    try:
        return Choice(tuple(_Chooser(shape, options, devices, reserve, beside).lines()))
    except Invalid as error:
        return Choice(unknown_why=error.message)


CHOOSERS: Mapping[str, Callable[..., Choice]] = {LLAMACPP: choose, VLLM: choose_for_vllm}
"""What chooses for each engine, by its name; all are called as `choose` is."""


class Choices:
    """The last choices, kept: a start, its drift and `show` ask the same question again and again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], tuple[Shape, Choice]] = OrderedDict()

    def of(
        self,
        engine: str,
        shape: Shape,
        options: Mapping[str, Any],
        devices: Sequence[Device],
        reserve: Bytes,
        beside: Beside | None = None,
    ) -> Choice:
        """What `choose` says, for the engine of that name; for one without a table of choices, nothing."""
        chooser = CHOOSERS.get(engine)
        if chooser is None:
            return Choice(unknown_why=f"there are no rules yet for the engine {engine}")
        sizes = tuple((device.id, capacity_bytes(device, devices, reserve)) for device in devices)
        key = (engine, id(shape), repr(sorted(options.items())), sizes)
        kept = self._kept.pop(key, None)
        if kept is None or kept[0] is not shape:  # the shape is held, so that its id stays its own
            kept = shape, chooser(shape, options, devices, reserve, beside)
        self._kept[key] = kept
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return kept[1]


class _Chooser:
    """One model on one set of devices."""

    def __init__(
        self,
        shape: ModelShape,
        options: Mapping[str, Any],
        devices: Sequence[Device],
        reserve: Bytes,
        beside: Beside | None,
    ) -> None:
        self._shape, self._options, self._beside = shape, options, beside
        self._devices = alone(devices, reserve)
        self._gpus = usable_gpus(options, self._devices)
        self._n_layers = len(shape.layers) + len(shape.extra_layers) + 1
        stated = gpu_layers(options, self._n_layers)
        self._layers_open = bool(self._gpus) and stated is None
        self._on_gpus = bool(self._gpus) and stated != 0
        self._context_open = options.get("context_length") is None and not options.get("kv_unified_per_slot")
        settings = Settings.of(shape, options)
        self._slots, self._streams = settings.slots, settings.streams
        self._whole = {device.id: device.free_bytes for device in self._devices}
        self._roomy = {device.id: device.free_bytes - self._margin(device) for device in self._devices}
        self._counters: dict[tuple[tuple[str, Any], ...], Counter] = {}

    def lines(self) -> Iterator[Chosen]:
        """What is chosen, each with its reason."""
        base = self._base()
        found = self._find(base)
        why = Why(self._gpus, self._n_layers, len(self._shape.layers), self._slots)
        everything = {**found.extra, **base}
        everything.pop("n_cpu_moe", None)
        at_once = self._tried(everything, self._floor, self._roomy)
        if "tensor_split" in found.extra:
            yield why.split(found.extra["tensor_split"])
        if self._layers_open:
            yield why.layers(found, at_once)
        if "n_cpu_moe" in found.extra:
            yield why.experts(found, at_once)
        shortest = self._tried(base, self._floor, self._roomy)
        if "kv_cache_type" in found.extra:
            yield why.cache(found, shortest)
        if "parallel_slots" in found.extra:
            yield why.slots(found, shortest)
        if self._context_open:
            at_full = self._tried(found.extra, self._full, self._roomy)
            is_roomy = self._tried(found.extra, found.context, self._roomy).fits
            yield why.context(found, at_full, trained=self._full, is_roomy=is_roomy)
        if self._gpus and self._options.get("fit") is None:
            yield why.engine_fit()

    # The search

    def _find(self, base: Mapping[str, Any]) -> Try:
        """The first step of the ladder on which it fits; the smallest of them where none does."""
        smaller = {**base, **self._smaller_cache()}
        fewer_slots = {**smaller, **self._fewer_slots()}
        for extra in _distinct(base, smaller, fewer_slots):
            if found := self._longest(extra, self._roomy):
                return found
        experts, layers = self._experts(), self._n_layers if self._layers_open else 0
        for name, most, falls in (("n_cpu_moe", experts, False), ("gpu_layers", layers, True)):
            if most and (found := self._shared_with_host(smaller, name, most, falls=falls)):
                return found
        candidates = _distinct(base, smaller, fewer_slots)
        if self._layers_open:
            candidates.append({"gpu_layers": 0})
        for floor in (self._floor, self._least):
            for extra in candidates:
                if found := self._longest(extra, self._whole, floor, self._floor):
                    return found
        return self._tried(candidates[-1], self._least, self._whole)

    def _shared_with_host(self, extra: Mapping[str, Any], name: str, most: int, *, falls: bool) -> Try | None:
        """With as little as possible on the host: layers (`falls`: fewer on GPUs) or experts of layers."""
        budget = {**self._roomy, **{id: n for id, n in self._whole.items() if id not in self._gpu_ids}}

        def at(n_on_host: int) -> dict[str, Any]:
            return {**extra, name: most - n_on_host if falls else n_on_host}

        def is_short(n_on_host: int) -> bool:
            return not self._tried(at(n_on_host), self._floor, self._roomy).fits_on(self._gpu_ids)

        chosen = at(last_true(is_short, 0, most) + 1)
        found = self._tried(chosen, self._floor, budget)
        if not found.fits:
            return None
        held = {place.id: max(place.total_bytes, self._roomy.get(place.id, 0)) for place in found.needs}
        longer = self._longest(chosen, {id: min(held.get(id, n), n) for id, n in budget.items()})
        return replace(longer or found, budget=budget)

    def _longest(
        self, extra: Mapping[str, Any], budget: Bytes, floor: int | None = None, full: int | None = None
    ) -> Try | None:
        """The longest context from `floor` to `full` that fits; None where not even the floor does."""
        floor, full = floor or self._floor, full or self._full
        whole = self._tried(extra, full, budget)
        if whole.fits or full <= floor:
            return whole if whole.fits else None
        shortest = self._tried(extra, floor, budget)
        if not shortest.fits:
            return None
        step = STEP_TOKENS * self._streams

        def fits(n: int) -> bool:
            return self._tried(extra, n * step, budget).fits

        low, high = floor // step, -(-full // step)
        n = last_true(fits, low, high)
        return self._tried(extra, n * step, budget) if n * step > floor else shortest

    def _tried(self, extra: Mapping[str, Any], context: int, budget: Bytes) -> Try:
        key = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in sorted(extra.items()))
        if key not in self._counters:
            together = {**self._options, **extra}
            self._counters[key] = Counter(self._shape, together, self._devices, self._beside)
        tokens, needs = self._counters[key].needs(context or None)
        return Try(extra, context or tokens, needs, budget)

    # What may be chosen

    def _base(self) -> dict[str, Any]:
        """Everything on the GPUs, shared out by their size."""
        base: dict[str, Any] = {"gpu_layers": self._n_layers} if self._layers_open else {}
        is_open = self._options.get("split_mode") in (None, "layer") and not self._options.get("tensor_split")
        if len(self._gpus) > 1 and self._on_gpus and is_open:
            sizes = [gpu.free_bytes // MIB for gpu in self._gpus]
            base["tensor_split"] = [1] * len(sizes) if len(set(sizes)) == 1 else sizes
        return base

    def _smaller_cache(self) -> dict[str, Any]:
        """A quantized cache, where the engine can have one: it needs flash attention and even heads."""
        layers = [layer for layer in self._shape.layers if layer.kv]
        possible = (
            self._on_gpus
            and not any(self._options.get(name) for name in _KV_TYPES)
            and self._options.get("flash_attention") != "off"
            and not self._shape.mla
            and bool(layers)
            and all(layer.head_k == layer.head_v and layer.head_k % 32 == 0 for layer in layers)
        )
        return {"kv_cache_type": QUANTIZED} if possible else {}

    def _fewer_slots(self) -> dict[str, Any]:
        stated = self._options.get("parallel_slots")
        is_open = stated is None or stated == -1
        return {"parallel_slots": 1} if is_open and self._on_gpus and self._shape.causal else {}

    def _experts(self) -> int:
        """How many layers have experts that may go to the host; 0 where that is set already."""
        if not self._layers_open or any(self._options.get(name) for name in _EXPERT_MOVERS):
            return 0
        return len(self._shape.layers) if self._shape.experts_used else 0

    @property
    def _gpu_ids(self) -> frozenset[str]:
        return frozenset(gpu.id for gpu in self._gpus)

    @property
    def _full(self) -> int:
        """What was trained for, for each cache; or what is set."""
        if not self._context_open:
            return int(self._options.get("context_length") or 0)
        return self._shape.trained_context * self._streams

    @property
    def _floor(self) -> int:
        least = self._options.get("fit_ctx") or FLOOR_TOKENS
        return min(self._full, int(least) * self._streams) if self._context_open else self._full

    @property
    def _least(self) -> int:
        """What llama.cpp itself comes down to."""
        return min(self._floor, FIT_CONTEXT_TOKENS * self._streams)

    def _margin(self, device: Device) -> int:
        """What is left of a device for what the estimate does not count, and for others."""
        is_pool = any(other.pool == device.id for other in self._devices)
        if device.kind == "cpu" and not is_pool:
            return device.free_bytes // HOST_SHARE
        targets = self._options.get("fit_target")
        if targets:
            places = [gpu.id for gpu in self._gpus]
            place = places.index(device.id) if device.id in places else 0
            return min(device.free_bytes, int(targets[min(place, len(targets) - 1)]) * MIB)
        return min(FIT_TARGET_MIB * MIB, device.free_bytes // GPU_MARGIN_SHARE)


def _distinct(*extras: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for extra in extras:
        if extra not in found:
            found.append(extra)
    return found
