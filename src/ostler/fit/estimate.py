"""How much memory a model will need under llama.cpp, on the host and on each GPU.

Weights come from the header, tensor by tensor (`placement.py`); the cache from the architecture and the
options (`kv_cache.py`); the compute buffer from the steps of the engine's graph (`compute.py`); what is
loaded beside the model is added (`beside.py`). What each number rests on, and how far it was from the
engine's own words, is in docs/fit.md. Start at `estimate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ostler.fit.adapters import adapter_bytes
from ostler.fit.beside import Beside, Loaded
from ostler.fit.bounds import bounds_of, margin_bytes
from ostler.fit.compute import Part, compute_bytes
from ostler.fit.devices import Device
from ostler.fit.drafting import draft_options
from ostler.fit.errors import ImpossibleOption
from ostler.fit.estimated import Estimate, Need
from ostler.fit.graph_projector import projector_compute_bytes
from ostler.fit.kv_cache import layer_cache_bytes
from ostler.fit.llamacpp_settings import CONTEXT_STEP, Settings
from ostler.fit.model_shape import Layer, ModelShape, typical
from ostler.fit.overheads import overhead_bytes
from ostler.fit.placement import HOST, Placement, place, projector_place, usable_gpus
from ostler.fit.warnings import warnings_of

PIPELINE_COPIES = 4
"""`GGML_SCHED_MAX_COPIES` in ggml-backend.cpp: inputs held by several GPUs that work in turn."""
F32_BYTES = 4


class Counter:
    """Counts one launch at different contexts; what does not depend on the context is kept.

    `options` are canonical engine options. `devices` are GPUs and at most one of the kind "cpu"; without that
    the host's free memory is unknown. `beside` reads what is loaded beside the model.
    """

    def __init__(
        self,
        shape: ModelShape,
        options: Mapping[str, Any],
        devices: Sequence[Device],
        beside: Beside | None,
    ) -> None:
        self._options = options
        self._loaded = beside.loaded(options) if beside else Loaded()
        self._shape = replace(shape, adapted=self._loaded.adapts)
        self._host = next((device for device in devices if device.kind == "cpu"), None)
        self._devices = devices
        self._gpus = usable_gpus(options, devices)
        self._largest: dict[int, int | None] = {}
        self._placements: dict[int, Placement] = {}
        self._layers: dict[tuple[int, int], tuple[tuple[Layer, float], ...]] = {}
        self._parts: dict[tuple[int, int], Part] = {}
        self._computed: dict[tuple[object, ...], int] = {}
        self._besides: dict[tuple[int, int], tuple[int, int]] = {}
        self._drafting: dict[int, Mapping[str, Need]] = {}
        self._draft = (
            Counter(self._loaded.draft, draft_options(options, 0), devices, None)
            if self._loaded.draft
            else None
        )

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
            warnings=warnings_of(self._shape, self._options, settings, placement, self._loaded),
            bounds=None if self._shape.known else bounds_of(self._shape, settings, needs),
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
            return all(self._has_room(settings, self._placed(n), where) for where in places)

        return self._placed(whole if not self._gpus or fits(whole) else last_true(fits, 0, whole))

    def _placed(self, n_layers: int) -> Placement:
        if n_layers not in self._placements:
            self._placements[n_layers] = place(self._shape, self._options, self._gpus, n_layers)
        return self._placements[n_layers]

    def _needs(self, settings: Settings, placement: Placement) -> tuple[Need, ...]:
        """One for each GPU, then the host's; GPUs that only the drafting model uses after the model's."""
        places = (*range(len(self._gpus)), HOST)
        needs = [self._need(settings, placement, where) for where in places]
        counted = {need.id for need in needs}
        only_draft = [need for id, need in self._drafted(settings).items() if id not in counted]
        gpus, host = (*needs[:-1], *only_draft), needs[-1]
        in_pool = {gpu.id for gpu in self._devices if gpu.pool == host.id}
        shared = sum(need.total_bytes for need in gpus if need.id in in_pool)
        return (*gpus, replace(host, shared_bytes=shared))

    def _need(self, settings: Settings, placement: Placement, where: int) -> Need:
        part = self._part(placement, where)
        return self._held(settings, placement, where, self._compute(settings, part) if part.works else 0)

    def _held(self, settings: Settings, placement: Placement, where: int, compute: int) -> Need:
        """What a device holds if the graph takes so many bytes of it."""
        host = where == HOST
        device = self._host if host else self._gpus[where]
        cache = sum(
            int(layer_cache_bytes(self._shape, layer, settings) * times)
            for layer, times in self._cached(placement, where)
        )
        weights = placement.weights_bytes[where]
        used = weights + cache > 0 or self._part(placement, where).works
        if host:
            compute += output_bytes(self._shape, settings)
        elif where == 0 and used:
            compute += placement.staged_bytes
        more = self._beside_bytes(placement, where)
        need = Need(
            id=device.id if device else "cpu",
            name=device.name if device else "host",
            weights_bytes=weights + more[0],
            kv_cache_bytes=cache,
            compute_bytes=compute + more[1],
            overhead_bytes=overhead_bytes(device.kind) if device and not host and (used or any(more)) else 0,
            free_bytes=device.free_bytes if device else None,
        )
        drafted = self._drafted(settings).get(need.id)
        return need.beside(drafted) if drafted else need

    def _beside_bytes(self, placement: Placement, where: int) -> tuple[int, int]:
        """Weights and compute buffers of adapters and of the projector."""
        key = (placement.gpu_layers, where)
        if key not in self._besides:
            loaded = self._loaded
            weights, compute = adapter_bytes(loaded.adapters, placement, where), 0
            if loaded.projector is not None and where == projector_place(self._options, self._gpus):
                weights += loaded.projector.weights_bytes
                compute += projector_compute_bytes(loaded.projector, self._options)
            self._besides[key] = weights, compute
        return self._besides[key]

    def _has_room(self, settings: Settings, placement: Placement, where: int) -> bool:
        """True if it fits there. The graph is only played where nothing cheaper decides."""
        if not self._held(settings, placement, where, 0).fits:
            return False
        part, longest = self._part(placement, where), self._settings(None)
        most = self._compute(longest, part) if settings.context <= longest.context and part.works else None
        if most is not None and self._held(settings, placement, where, most).fits:
            return (
                True  # a longer context never computes in less, and this one is kept for all that are tried
            )
        return self._need(settings, placement, where).fits

    def _drafted(self, settings: Settings) -> Mapping[str, Need]:
        """What the drafting model holds, by device."""
        if self._draft is None:
            return {}
        if settings.context not in self._drafting:
            _, needs = self._draft.needs(settings.context)
            self._drafting[settings.context] = {need.id: need for need in needs if need.total_bytes}
        return self._drafting[settings.context]

    def _cached(self, placement: Placement, where: int) -> tuple[tuple[Layer, float], ...]:
        """Of each kind of layer one, and how many of them have their cache there."""
        key = (placement.gpu_layers, where)
        if key not in self._layers:
            at_home = self._options.get("kv_offload") is not False
            times: dict[int, float] = {}
            kinds: dict[int, Layer] = {}
            for layer in self._shape.layers:
                share = placement.cache_share(self._shape, layer, where) if at_home else float(where == HOST)
                if share:
                    kinds.setdefault(layer.kind, layer)
                    times[layer.kind] = times.get(layer.kind, 0.0) + share
            self._layers[key] = tuple((layer, times[kind]) for kind, layer in kinds.items())
        return self._layers[key]

    def _compute(self, settings: Settings, part: Part) -> int:
        key = (settings, self._shape.layers[-1] in part.layers, *part.kind)
        if key not in self._computed:
            found = compute_bytes(self._shape, settings, part)
            if found and not self._shape.known:
                found += margin_bytes(self._shape, settings)
            self._computed[key] = found
        return self._computed[key]

    def _part(self, placement: Placement, where: int) -> Part:
        key = (placement.gpu_layers, where)
        if key not in self._parts:
            self._parts[key] = self._part_of(placement, where)
        return self._parts[key]

    def _part_of(self, placement: Placement, where: int) -> Part:
        shape, host = self._shape, where == HOST
        own = [layer for layer in shape.layers if placement.computes(layer.index, where)]
        if where == 0 and placement.staged_bytes:
            own = [layer for layer in shape.layers if placement.layers[layer.index] in (HOST, 0)]
        return Part(
            layers=shape.kinds if len(own) == len(shape.layers) else typical(own),
            first=host,
            last=placement.is_output(where),
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
            and not placement.moves.rules
        )

    def _largest_context(self, placement: Placement) -> int | None:
        """By bisection over what the model was trained for; None where not even one step fits."""
        slots = self._settings(None).streams
        steps = max(1, self._shape.trained_context // CONTEXT_STEP)

        def at(n: int) -> Settings:
            return self._settings(n * CONTEXT_STEP * slots)

        def seems_to_fit(n: int) -> bool:
            places = (*range(len(self._gpus)), HOST)
            return all(self._has_room(at(n), placement, where) for where in places)

        def fits(n: int) -> bool:
            return all(need.fits for need in self._needs(at(n), placement))

        found = steps if seems_to_fit(steps) else last_true(seems_to_fit, 0, steps)
        if found and not fits(found):
            found = last_true(fits, 0, found)
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
