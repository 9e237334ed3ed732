"""Why a value was chosen: one sentence with numbers for each option that was left open."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ostler.core.sizes import size_text
from ostler.fit.devices import Device
from ostler.fit.estimated import Need
from ostler.fit.ledger import Bytes


@dataclass(frozen=True, slots=True)
class Chosen:
    """An option that was left open, the value that it gets, and why."""

    name: str
    value: Any
    reason: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, in the order of the choosing. `unknown_why` says why nothing could be."""

    lines: tuple[Chosen, ...] = ()
    unknown_why: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The chosen engine options."""
        return {line.name: line.value for line in self.lines}

    def without(self, name: str) -> Choice:
        """The same with one option left open."""
        return replace(self, lines=tuple(line for line in self.lines if line.name != name))

    def to_json(self) -> list[dict[str, Any]]:
        """A JSON-ready form of the lines."""
        return [line.to_json() for line in self.lines]


@dataclass(frozen=True, slots=True)
class Try:
    """What a launch with these further options and this context needs, against what it may take."""

    extra: Mapping[str, Any]
    context: int
    needs: Sequence[Need]
    budget: Bytes

    @property
    def fits(self) -> bool:
        """True where every device has that much for it."""
        return all(need.total_bytes + need.shared_bytes <= self.budget.get(need.id, 0) for need in self._used)

    def fits_on(self, ids: Collection[str]) -> bool:
        """The same for some of the devices."""
        return all(n.total_bytes <= self.budget.get(n.id, 0) for n in self._used if n.id in ids)

    @property
    def fullest(self) -> str:
        """The device on which it is tightest, in words."""
        if not self._used:
            total = sum(need.total_bytes for need in self.needs)
            return f"{size_text(total)} of a host whose memory is not known"
        need = max(self._used, key=lambda need: need.total_bytes / max(1, self.budget.get(need.id, 0)))
        return f"{size_text(need.total_bytes)} on {need.id}, where {self._room(need.id)} may be filled"

    def weights(self, ids: Collection[str]) -> int:
        """Bytes of weights on these devices."""
        return sum(need.weights_bytes for need in self.needs if need.id in ids)

    @property
    def _used(self) -> Sequence[Need]:
        """Devices that are used; a host that was not described has no limit."""
        return [need for need in self.needs if need.total_bytes and need.free_bytes is not None]

    def _room(self, id: str) -> str:
        return size_text(max(0, self.budget.get(id, 0)))


class Why:
    """The sentences of one model on its devices. `n_layers` counts the output as one, `n_blocks` does not."""

    def __init__(self, gpus: Sequence[Device], n_layers: int, n_blocks: int, slots: int) -> None:
        self._gpus, self._n_layers, self._n_blocks, self._slots = gpus, n_layers, n_blocks, slots

    def split(self, value: Sequence[float]) -> Chosen:
        """Over several GPUs."""
        sizes = ", ".join(f"{gpu.id} {size_text(gpu.free_bytes)}" for gpu in self._gpus)
        return Chosen("tensor_split", list(value), f"in the proportions of what the GPUs can hold: {sizes}")

    def layers(self, found: Try, at_once: Try) -> Chosen:
        """How many on the GPUs. `at_once` is the same with all of them."""
        n, ids = found.extra["gpu_layers"], [gpu.id for gpu in self._gpus]
        names, weights = ", ".join(ids), size_text(found.weights(ids))
        if n == self._n_layers:
            return Chosen("gpu_layers", n, f"every layer and the output: {weights} of weights on {names}")
        reason = (
            f"{n} of {self._n_layers} fit on {names}, the rest stays on the host: all of them, with "
            f"{at_once.context} tokens of context, need {at_once.fullest}"
        )
        return Chosen("gpu_layers", n, reason)

    def experts(self, found: Try, at_once: Try) -> Chosen:
        """How many layers leave their experts on the host. `at_once` is the same with none."""
        n = found.extra["n_cpu_moe"]
        reason = (
            f"the experts of {n} of {self._n_blocks} layers stay on the host, so that all else is on the "
            f"GPU: with none there, and {at_once.context} tokens of context, it needs {at_once.fullest}"
        )
        return Chosen("n_cpu_moe", n, reason)

    def cache(self, found: Try, plain: Try) -> Chosen:
        """A quantized cache. `plain` is the shortest context without it."""
        shortest = f"with {plain.context} tokens of context"
        reason = f"about half of the cache: as f16, {shortest}, it needs {plain.fullest}"
        return Chosen("kv_cache_type", found.extra["kv_cache_type"], reason)

    def slots(self, found: Try, plain: Try) -> Chosen:
        """Fewer requests at once."""
        reason = f"{self._slots} requests at once need {plain.fullest}"
        return Chosen("parallel_slots", found.extra["parallel_slots"], reason)

    def context(self, found: Try, full: Try, *, trained: int, is_roomy: bool) -> Chosen:
        """How much context, for all slots together. `full` is the same with as much as was trained for."""
        if found.context == trained:
            reason = f"as long as the model was trained for; it needs {found.fullest}"
        elif is_roomy:
            reason = f"the longest that fits: the {trained} tokens of the training need {full.fullest}"
        elif found.fits:
            reason = f"it needs {found.fullest}; more would leave too little for other programs"
        else:
            reason = f"the shortest that is chosen; it needs {found.fullest}"
        return Chosen("context_length", found.context, reason)

    def engine_fit(self) -> Chosen:
        """The engine's own fitting."""
        return Chosen("fit", "off", "what was left open is chosen already; the engine changes none of it")
