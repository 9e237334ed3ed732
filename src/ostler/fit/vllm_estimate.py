"""How much memory a model will need under vLLM, on the host and on each GPU.

vLLM takes `gpu_memory_utilization` of each GPU whatever the model needs, and gives the cache what weights and
computing leave of it (`determine_available_memory` in v1/worker/gpu_worker.py; cpu_worker.py for the CPU). A
model fits if one request of the full context goes into that. Start at `VllmCounter`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ostler.fit.devices import Device
from ostler.fit.errors import ImpossibleOption
from ostler.fit.estimate import last_true
from ostler.fit.estimated import Estimate, Need
from ostler.fit.placement import usable_gpus
from ostler.fit.vllm_compute import CPU_SERVER_BYTES, activation_bytes, graph_bytes, overhead_bytes
from ostler.fit.vllm_kv_cache import Pool, pool_of
from ostler.fit.vllm_settings import VllmSettings
from ostler.fit.vllm_shape import VllmShape
from ostler.fit.vllm_warnings import warnings_of
from ostler.fit.vllm_weights import layers_by_stage, weights_bytes

SMALLEST_SHARE = 0.05
OPEN_TOKENS = 8_192
"""An open context should be so long at least before the model is put on more GPUs."""
SHORTENING = (-1, "auto")
"""Values of `context_length` with which vLLM takes the longest context that fits."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of vLLM, or on the CPU all of them: bytes without the cache, and the cache's pool."""

    device: Device | None
    weights_bytes: int
    compute_bytes: int
    overhead_bytes: int
    pool: Pool
    budget_bytes: int | None
    settings: VllmSettings

    @property
    def fixed_bytes(self) -> int:
        """All but the cache."""
        return self.weights_bytes + self.compute_bytes + self.overhead_bytes

    @property
    def cache_bytes(self) -> int:
        """What the cache gets; negative where not even the rest goes into the budget."""
        stated = self.settings.cache_bytes
        return stated if stated is not None else (self.budget_bytes or 0) - self.fixed_bytes

    def holds(self, tokens: int) -> bool:
        """True if the cache holds a request of so many tokens."""
        return self.cache_bytes >= self.pool.least_bytes(tokens, self.settings)

    @property
    def blocks(self) -> int:
        """Blocks of the pool, as far as this process's memory goes."""
        return max(0, self.cache_bytes) // self.pool.block_bytes if self.pool.block_bytes else 1

    def need(self, tokens: int) -> Need:
        """What is needed of its device: at least the cache of one request."""
        cache = max(self.cache_bytes, self.pool.least_bytes(tokens, self.settings)) if self.pool.groups else 0
        device = self.device
        return Need(
            id=device.id if device else "cpu",
            name=device.name if device else "host",
            weights_bytes=self.weights_bytes,
            kv_cache_bytes=cache,
            compute_bytes=self.compute_bytes,
            overhead_bytes=self.overhead_bytes,
            free_bytes=device.free_bytes if device else None,
            limit_bytes=self.budget_bytes if self.settings.cache_bytes is None else None,
        )


class VllmCounter:
    """Counts one launch at different contexts.

    With `choosing`, options that are left open are chosen so that the model fits, and told in the answer:
    as few GPUs as hold it, no larger share of them than is free, no longer context than goes in. Without,
    they are vLLM's defaults.
    """

    def __init__(
        self,
        shape: VllmShape,
        options: Mapping[str, Any],
        devices: Sequence[Device],
        *,
        choosing: bool = True,
    ) -> None:
        self._shape, self._options, self._devices = shape, options, devices
        self._choosing = choosing
        self._known: dict[tuple[int, int], list[tuple[int, Pool]]] = {}

    def needs(self, context: int | None) -> tuple[int, tuple[Need, ...]]:
        """The context in tokens, and what each GPU and then the host needs. Raises ImpossibleOption."""
        settings, _ = self._settings(stated_context(context))
        return settings.context, self._needs(settings, self._ranks(settings))

    def largest_context(self) -> int | None:
        """The longest context in tokens of which one request fits; None where not even one token does."""
        settings, _ = self._settings(None)
        return self._largest_context(self._ranks(settings))

    def at(self, context: int | None) -> Estimate:
        """The whole answer, with the largest context that fits. Raises ImpossibleOption."""
        context = stated_context(context)
        settings, chosen = self._settings(context)
        ranks = self._ranks(settings)
        largest = self._largest_context(ranks)
        if not context and largest is not None and largest < settings.context:
            chosen["context_length"] = largest
            settings = replace(settings, context=largest)
            ranks = self._ranks(settings)
        needs = self._needs(settings, ranks)
        tokens, at_once = _capacity(ranks, settings)
        return Estimate(
            context_length=settings.context,
            parallel=settings.sequences,
            devices=needs[:-1],
            host=needs[-1],
            max_context_length=largest,
            options=chosen,
            warnings=warnings_of(self._shape, self._options, settings),
            engine="vllm",
            details={
                "gpu_memory_utilization": settings.utilization,
                "kv_cache_tokens": tokens * settings.data_parallel,
                "max_concurrency": round(at_once * settings.data_parallel, 2),
            },
        )

    def _settings(self, context: int | None) -> tuple[VllmSettings, dict[str, Any]]:
        """The launch at this context, and the options that were chosen for it."""
        chosen = self._chosen(context) if self._choosing else {}
        return self._with(chosen, context), chosen

    def _with(self, chosen: Mapping[str, Any], context: int | None) -> VllmSettings:
        return VllmSettings.of(self._shape, {**self._options, **chosen}, self._devices, context)

    def _ranks(self, settings: VllmSettings) -> tuple[Rank, ...]:
        """One for each GPU in their order; on the CPU one for all processes together."""
        return tuple(self._each_rank(settings))

    def _each_rank(self, settings: VllmSettings) -> Iterator[Rank]:
        stages = self._stages(settings)
        computing = activation_bytes(self._shape, settings) + graph_bytes(self._shape, settings)
        overhead = overhead_bytes(settings)
        if settings.on_cpu:
            whole = sum(weights for weights, _ in stages) * settings.tensor_parallel
            budget = _budget(settings.host, settings)
            yield Rank(settings.host, whole, computing, overhead, stages[0][1], budget, settings)
        for place, gpu in enumerate(settings.gpus):
            weights, pool = stages[place // settings.tensor_parallel % settings.pipeline_parallel]
            kept = max(0, weights - settings.offloaded_bytes)
            yield Rank(gpu, kept, computing, overhead, pool, _budget(gpu, settings), settings)

    def _stages(self, settings: VllmSettings) -> list[tuple[int, Pool]]:
        """Weights and pool of a GPU of each stage of the pipeline; the context does not change them."""
        key = (settings.tensor_parallel, settings.pipeline_parallel)
        if key not in self._known:
            stages = layers_by_stage(self._shape.layers, settings.pipeline_parallel)
            self._known[key] = [
                (weights_bytes(self._shape, settings, layers), pool_of(self._shape, layers, settings))
                for layers in stages
            ]
        return self._known[key]

    def _needs(self, settings: VllmSettings, ranks: Sequence[Rank]) -> tuple[Need, ...]:
        needs = tuple(rank.need(settings.context) for rank in ranks)
        if settings.on_cpu:
            return needs
        host = settings.host
        return (
            *needs,
            Need(
                id=host.id if host else "cpu",
                name=host.name if host else "host",
                weights_bytes=self._offloaded(settings),
                kv_cache_bytes=0,
                compute_bytes=0,
                overhead_bytes=0,
                free_bytes=host.free_bytes if host else None,
            ),
        )

    def _offloaded(self, settings: VllmSettings) -> int:
        if not settings.offloaded_bytes:
            return 0
        moved = [min(settings.offloaded_bytes, weights) for weights, _ in self._stages(settings)]
        return sum(moved) * settings.tensor_parallel * settings.data_parallel

    def _largest_context(self, ranks: Sequence[Rank]) -> int | None:
        """`_estimate_max_model_len_from_groups`; None where not even one token fits."""
        if any(rank.budget_bytes is not None and rank.cache_bytes < 0 for rank in ranks):
            return None
        longest = self._shape.trained_context

        def holds(tokens: int) -> bool:
            return all(rank.holds(tokens) for rank in ranks)

        return longest if holds(longest) else (last_true(holds, 0, longest) or None)

    def _chosen(self, context: int | None) -> dict[str, Any]:
        return (gpus := self._chosen_gpus(context)) | self._chosen_share(gpus, context)

    def _chosen_gpus(self, context: int | None) -> dict[str, Any]:
        """As few GPUs as hold the model, by numbers that its heads can be shared out to."""
        gpus = usable_gpus(self._options, self._devices)
        stated = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
        if len(gpus) < 2 or any(self._options.get(name) is not None for name in stated):
            return {}
        sizes = [n for n in range(1, len(gpus) + 1) if _shares_out(self._shape, n)]
        choices = [{"tensor_parallel_size": size} for size in sizes]
        return next((choice for choice in choices if self._fits(choice, context)), choices[-1])

    def _fits(self, chosen: Mapping[str, Any], context: int | None) -> bool:
        settings = self._with(chosen, context)
        tokens = context or min(settings.context, OPEN_TOKENS)
        return all(rank.cache_bytes >= 0 and rank.holds(tokens) for rank in self._ranks(settings))

    def _chosen_share(self, chosen: Mapping[str, Any], context: int | None) -> dict[str, Any]:
        """vLLM does not start where less is free than it may take (`request_memory`, v1/worker/utils.py)."""
        settings = self._with(chosen, context)
        places = settings.gpus or ((settings.host,) if settings.host else ())
        if self._options.get("gpu_memory_utilization") is not None or settings.cache_bytes is not None:
            return {}
        beside = CPU_SERVER_BYTES if settings.on_cpu else 0
        shares = [(place.free_bytes - beside) / max(1, place.total_bytes) for place in places]
        free = min(shares, default=1.0)
        if free >= settings.utilization:
            return {}
        return {"gpu_memory_utilization": max(SMALLEST_SHARE, math.floor(free * 100) / 100)}


def stated_context(tokens: Any) -> int | None:
    """The option `context_length` in tokens; None where it is left open, or to vLLM itself.

    Raises ImpossibleOption.
    """
    if tokens in (None, 0, *SHORTENING):
        return None
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise ImpossibleOption("context_length", f"a context is a number of tokens, not {tokens!r}")
    return tokens


def _budget(device: Device | None, settings: VllmSettings) -> int | None:
    """What vLLM lets itself take of a device; None where nobody knows its size.

    On the CPU only the process that computes minds the share (v1/worker/cpu_worker.py).
    """
    if device is None:
        return None
    budget = math.ceil(device.total_bytes * settings.utilization)
    return budget + (CPU_SERVER_BYTES if settings.on_cpu else 0)


def _capacity(ranks: Sequence[Rank], settings: VllmSettings) -> tuple[int, float]:
    """Tokens in the cache of one copy of the model, and requests of the full context at once."""
    blocks = min(rank.blocks for rank in ranks)
    return ranks[0].pool.capacity(blocks, settings)


def _shares_out(shape: VllmShape, n: int) -> bool:
    """Whether heads, and those of keys and values, can be shared out to `n` GPUs."""
    kv = max(1, shape.n_kv_heads)
    return shape.n_heads % n == 0 and (kv % n == 0 or n % kv == 0)
