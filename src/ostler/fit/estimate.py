"""How much memory a model will need under llama.cpp, on the host and on each GPU.

Weights come from the header, tensor by tensor (`placement.py`); the cache from the architecture and the
options (`kv_cache.py`); the compute buffer from the steps of the engine's graph (`compute.py`). What each
number rests on, and how far it was from the engine's own words, is in docs/fit.md. Start at `estimate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ostler.fit.compute import Part, compute_bytes
from ostler.fit.devices import Device
from ostler.fit.errors import ImpossibleOption
from ostler.fit.estimated import Estimate, Need
from ostler.fit.kv_cache import layer_cache_bytes
from ostler.fit.llamacpp_settings import CONTEXT_STEP, Settings
from ostler.fit.model_shape import ModelShape, typical
from ostler.fit.placement import HOST, Placement, place, usable_gpus
from ostler.fit.warnings import warnings_of
from ostler.library.gguf_header import GgufHeader

GPU_OVERHEAD_BYTES = 512 << 20
"""Set aside for the driver's context and cuBLAS on each GPU used; not measured, see docs/fit.md."""
PIPELINE_COPIES = 4
"""`GGML_SCHED_MAX_COPIES` in ggml-backend.cpp: inputs held by several GPUs that work in turn."""
F32_BYTES = 4


def estimate(
    shape: ModelShape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    *,
    projector: GgufHeader | None = None,
) -> Estimate:
    """What a model with these canonical engine options needs on these devices.

    `devices` are GPUs and at most one of the kind "cpu"; without that the host's free memory is unknown.
    `projector` is the header of an mmproj file. Raises ImpossibleOption.
    """
    return sweep(shape, options, devices, [options.get("context_length")], projector=projector)[0]


def sweep(
    shape: ModelShape,
    options: Mapping[str, Any],
    devices: Sequence[Device],
    contexts: Sequence[int | None],
    *,
    projector: GgufHeader | None = None,
) -> tuple[Estimate, ...]:
    """The same for several context lengths in tokens; None or 0 is the trained one."""
    counter = Counter(shape, options, devices, projector)
    return tuple(counter.at(context) for context in contexts)


class Counter:
    """Counts one launch at different contexts; what does not depend on the context is kept."""

    def __init__(
        self,
        shape: ModelShape,
        options: Mapping[str, Any],
        devices: Sequence[Device],
        projector: GgufHeader | None,
    ) -> None:
        self._shape, self._options, self._projector = shape, options, projector
        self._host = next((device for device in devices if device.kind == "cpu"), None)
        self._gpus = usable_gpus(options, devices)
        self._largest: dict[int, int | None] = {}
        self._placements: dict[int, Placement] = {}
        self._computed: dict[tuple[object, ...], int] = {}

    def needs(self, context: int | None) -> tuple[int, tuple[Need, ...]]:
        """The context in tokens, and what each GPU and then the host needs. Raises ImpossibleOption."""
        settings = self._settings(context)
        return settings.context, self._needs(settings, self._placement(settings))

    def at(self, context: int | None) -> Estimate:
        """The whole answer, with the largest context that fits. Raises ImpossibleOption."""
        settings = self._settings(context)
        placement = self._placement(settings)
        needs = self._needs(settings, placement)
        if placement.gpu_layers not in self._largest:
            self._largest[placement.gpu_layers] = self._largest_context(placement)
        return Estimate(
            context_length=settings.context,
            parallel=settings.slots,
            devices=needs[:-1],
            host=needs[-1],
            max_context_length=self._largest[placement.gpu_layers],
            options={"gpu_layers": placement.gpu_layers} if self._gpus else {},
            warnings=warnings_of(self._shape, self._options, settings, placement),
        )

    def _settings(self, context: int | None) -> Settings:
        return Settings.of(self._shape, {**self._options, "context_length": context})

    def _placement(self, settings: Settings) -> Placement:
        """As many GPU layers as stated; where none are stated, as many as fit."""
        whole = len(self._shape.layers) + len(self._shape.extra_layers) + 1
        wanted = gpu_layers(self._options, whole)
        if wanted is not None:
            return self._placed(wanted)

        def fits(n: int) -> bool:
            places = range(len(self._gpus))
            return all(self._need(settings, self._placed(n), where).fits for where in places)

        return self._placed(whole if not self._gpus or fits(whole) else last_true(fits, 0, whole))

    def _placed(self, n_layers: int) -> Placement:
        if n_layers not in self._placements:
            self._placements[n_layers] = place(self._shape, self._options, self._gpus, n_layers)
        return self._placements[n_layers]

    def _needs(self, settings: Settings, placement: Placement) -> tuple[Need, ...]:
        """One for each GPU, then the host's."""
        gpus = tuple(self._need(settings, placement, where) for where in range(len(self._gpus)))
        host = self._need(settings, placement, HOST)
        on_host = [need for gpu, need in zip(self._gpus, gpus, strict=True) if gpu.pool == host.id]
        return (*gpus, replace(host, shared_bytes=sum(need.total_bytes for need in on_host)))

    def _need(self, settings: Settings, placement: Placement, where: int) -> Need:
        shape, host = self._shape, where == HOST
        device = self._host if host else self._gpus[where]
        cache_home = self._options.get("kv_offload") is not False
        cache = sum(
            layer_cache_bytes(shape, layer, settings)
            for layer in shape.layers
            if (placement.layers[layer.index] if cache_home else HOST) == where
        )
        compute = self._compute(settings, self._part(placement, where))
        if host:
            compute += output_bytes(shape, settings)
        elif where == 0 and compute:
            compute += placement.staged_bytes
        weights = placement.weights_bytes[where] + self._projector_bytes(where)
        used = weights + cache + compute > 0
        return Need(
            id=device.id if device else "cpu",
            name=device.name if device else "host",
            weights_bytes=weights,
            kv_cache_bytes=cache,
            compute_bytes=compute,
            overhead_bytes=GPU_OVERHEAD_BYTES if used and not host else 0,
            free_bytes=device.free_bytes if device else None,
        )

    def _compute(self, settings: Settings, part: Part) -> int:
        key = (settings, self._shape.layers[-1] in part.layers, *part.kind)
        if key not in self._computed:
            self._computed[key] = compute_bytes(self._shape, settings, part)
        return self._computed[key]

    def _part(self, placement: Placement, where: int) -> Part:
        shape, host = self._shape, where == HOST
        own = [layer for layer in shape.layers if placement.layers[layer.index] == where]
        if where == 0 and placement.staged_bytes:
            own = [layer for layer in shape.layers if placement.layers[layer.index] in (HOST, 0)]
        return Part(
            layers=shape.kinds if len(own) == len(shape.layers) else typical(own),
            first=host,
            last=placement.output == where,
            gpu=not host,
            copies=PIPELINE_COPIES if self._pipelined(placement) else 1,
        )

    def _pipelined(self, placement: Placement) -> bool:
        """The conditions in the constructor of llama_context."""
        return (
            len(self._gpus) > 1
            and HOST not in (*placement.layers, placement.output)
            and self._options.get("split_mode") in (None, "layer")
            and self._options.get("kv_offload") is not False
            and placement.staged_bytes == 0
            and not placement.overridden
        )

    def _projector_bytes(self, where: int) -> int:
        if self._projector is None:
            return 0
        offloaded = bool(self._gpus) and self._options.get("mmproj_offload") is not False
        return self._projector.weights_bytes if where == (0 if offloaded else HOST) else 0

    def _largest_context(self, placement: Placement) -> int | None:
        """By bisection over what the model was trained for; None where not even one step fits."""
        slots = self._settings(None).streams
        steps = max(1, self._shape.trained_context // CONTEXT_STEP)

        def fits(n: int) -> bool:
            needs = self._needs(self._settings(n * CONTEXT_STEP * slots), placement)
            return all(need.fits for need in needs)

        found = steps if fits(steps) else last_true(fits, 0, steps)
        return min(found * CONTEXT_STEP, self._shape.trained_context) * slots if found else None


def last_true(test: Any, low: int, high: int) -> int:
    """The largest number from `low` up to below `high` that passes, if all up to it pass; `low` unasked."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if test(middle) else (low, middle)
    return low


def gpu_layers(options: Mapping[str, Any], whole: int) -> int | None:
    """The stated number of GPU layers, the output included; None where the choice is left open."""
    stated = options.get("gpu_layers")
    if stated in (None, "auto", -1):
        return None
    if stated in ("all", -2):
        return whole
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 0:
        raise ImpossibleOption("gpu_layers", f"gpu_layers must be a number, auto or all, not {stated!r}")
    return min(stated, whole)


def output_bytes(shape: ModelShape, settings: Settings) -> int:
    """The engine's buffer of results, on the host: `llama_context::output_reserve`."""
    width = shape.n_vocab + (shape.n_embd if settings.embeddings else 0)
    return settings.output_rows * width * F32_BYTES
