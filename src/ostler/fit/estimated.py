"""The answer of the estimate, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Exactness = Literal["measured", "engine", "estimated"]


@dataclass(frozen=True, slots=True)
class Need:
    """What is needed of one device, in bytes. `free_bytes` is None where nobody knows.

    `compute_bytes` holds the activations of one batch and, on the host, the buffer of results;
    `overhead_bytes` what the driver and the program take for themselves. `shared_bytes` is what other
    devices need out of the same memory, where they have none of their own. `limit_bytes` is the most that
    the engine lets itself take; None for one that has no such limit. `measured_bytes` is the most that an
    earlier run of the same launch took, None where there was none.
    """

    id: str
    name: str
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    free_bytes: int | None
    shared_bytes: int = 0
    limit_bytes: int | None = None
    measured_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.overhead_bytes

    @property
    def fits(self) -> bool:
        """True if that much is free, or nobody knows, and the engine lets itself take it."""
        limited = self.limit_bytes is not None and self.total_bytes > self.limit_bytes
        free = self.free_bytes
        return not limited and (free is None or self.total_bytes + self.shared_bytes <= free)

    def beside(self, other: Need) -> Need:
        """Both on one device, in one process: the overhead counts once."""
        return replace(
            self,
            weights_bytes=self.weights_bytes + other.weights_bytes,
            kv_cache_bytes=self.kv_cache_bytes + other.kv_cache_bytes,
            compute_bytes=self.compute_bytes + other.compute_bytes,
            overhead_bytes=max(self.overhead_bytes, other.overhead_bytes),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        shown = {**asdict(self), "total_bytes": self.total_bytes, "fits": self.fits}
        if self.limit_bytes is None:
            del shown["limit_bytes"]
        return shown


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between what the sum over all devices lies, in bytes."""

    lower_bytes: int
    upper_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one launch needs. `context_length` is in tokens over all `parallel` slots.

    `max_context_length` is the largest that fits with the same GPU layers; None where none does.
    `options` are the choices that were made where the caller left them open, `chosen` the same with a
    reason for each. `details` are numbers that only this engine has. `bounds` is given where the architecture
    is not known; then every other number is the upper bound.
    """

    context_length: int
    parallel: int
    devices: tuple[Need, ...]
    host: Need
    max_context_length: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    exactness: Exactness = "estimated"
    engine: str = "llamacpp"
    details: Mapping[str, Any] = field(default_factory=dict)
    bounds: Bounds | None = None
    chosen: tuple[Mapping[str, Any], ...] = ()

    @property
    def fits(self) -> bool:
        """True if every device has room."""
        return all(need.fits for need in (*self.devices, self.host))

    def total(self, name: str) -> int:
        """The sum of one of the numbers of `Need` over all devices and the host."""
        return sum(int(getattr(need, name)) for need in (*self.devices, self.host))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; the sums over all devices stand beside them."""
        return {
            "engine": self.engine,
            "context_length": self.context_length,
            "parallel": self.parallel,
            "devices": [need.to_json() for need in self.devices],
            "host": self.host.to_json(),
            "fits": self.fits,
            "max_context_length": self.max_context_length,
            "options": dict(self.options),
            "chosen": list(self.chosen),
            "exactness": self.exactness,
            "warnings": list(self.warnings),
            **({"bounds": asdict(self.bounds)} if self.bounds else {}),
            **{name: self.total(name) for name in _SUMS},
            **self.details,
        }


_SUMS = ("weights_bytes", "kv_cache_bytes", "compute_bytes", "total_bytes")
