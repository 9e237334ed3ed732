"""What vLLM makes of the options: numbers that the estimate counts with.

Defaults are those of vLLM 0.32.0: `get_batch_defaults` and what follows it in engine/arg_utils.py, and
`CacheConfig` in config/cache.py. Option names are ours (`engines/vllm_options`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ostler.fit.devices import Device
from ostler.fit.errors import ImpossibleOption
from ostler.fit.placement import usable_gpus
from ostler.fit.vllm_quantization import CACHE_FORMATS, DTYPE_BYTES, ON_LOAD_BYTES
from ostler.fit.vllm_shape import VllmShape

GIB = 1 << 30
UTILIZATION = 0.92
MAX_CONTEXT = 1 << 30
MAX_WORLD = 1_024


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """One launch, in the engine's terms.

    `gpus` are those used, in order: for each copy the pipeline's stages, each of `tensor_parallel` GPUs. On
    the CPU there are none. `cache_bytes` is the cache's stated size on each GPU, or None where it gets what
    is left of `utilization`. `linear_bytes` is what a weight of a linear layer takes that is quantized at
    loading, `scan_bytes` a number of a recurrent state, where stated.
    """

    context: int
    sequences: int
    batch_tokens: int
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    gpus: tuple[Device, ...]
    host: Device | None
    utilization: float
    cache_bytes: int | None
    cache_format: str
    block_tokens: int
    dtype_bytes: int
    linear_bytes: float | None
    scan_bytes: int | None
    eager: bool
    offloaded_bytes: int
    caches_prefixes: bool

    @property
    def on_cpu(self) -> bool:
        """True where no GPU is used."""
        return not self.gpus

    @property
    def in_flight_tokens(self) -> int:
        """Tokens that are given out and not yet done: `max_in_flight_tokens` in config/vllm.py.

        GPUs work on two batches at once, a pipeline on one more than it has stages.
        """
        batches = self.pipeline_parallel if self.on_cpu else self.pipeline_parallel + 1
        return batches * self.batch_tokens

    @classmethod
    def of(
        cls, shape: VllmShape, options: Mapping[str, Any], devices: Sequence[Device], context: int | None
    ) -> VllmSettings:
        """Read canonical options for one model; `context` takes the place of `context_length`.

        Raises ImpossibleOption.
        """
        tensor = _parallel(options, "tensor_parallel_size")
        pipeline = _parallel(options, "pipeline_parallel_size")
        copies = _parallel(options, "data_parallel_size")
        gpus = _used(usable_gpus(options, devices), tensor * pipeline * copies)
        _check_heads(shape, tensor)
        context = min(context or shape.trained_context, MAX_CONTEXT)
        batch, sequences = _batches(options, context, gpus, tensor * pipeline)
        return cls(
            context=context,
            sequences=sequences,
            batch_tokens=batch,
            tensor_parallel=tensor,
            pipeline_parallel=pipeline,
            data_parallel=copies,
            gpus=gpus,
            host=next((device for device in devices if device.kind == "cpu"), None),
            utilization=_utilization(options),
            cache_bytes=_cache_bytes(options, on_cpu=not gpus),
            cache_format=_cache_format(shape, options),
            block_tokens=_count(options, "block_size") or 0,
            dtype_bytes=_dtype_bytes(options, "dtype"),
            linear_bytes=_linear_bytes(shape, options),
            scan_bytes=_stated_dtype_bytes(options, "mamba_ssm_cache_dtype"),
            eager=bool(options.get("enforce_eager")),
            offloaded_bytes=int(_number(options, "cpu_offload_gb") * GIB),
            caches_prefixes=shape.hybrid and options.get("enable_prefix_caching") is not False,
        )


def _used(gpus: tuple[Device, ...], wanted: int) -> tuple[Device, ...]:
    if gpus and wanted > len(gpus):
        raise ImpossibleOption("tensor_parallel_size", f"{wanted} GPUs are wanted, there are {len(gpus)}")
    return gpus[:wanted]


def _check_heads(shape: VllmShape, tensor: int) -> None:
    """`verify_with_parallel_config` in config/model.py."""
    if shape.n_heads % tensor:
        message = f"{shape.n_heads} heads cannot be shared out evenly to {tensor} GPUs"
        raise ImpossibleOption("tensor_parallel_size", message)


def _batches(options: Mapping[str, Any], context: int, gpus: Sequence[Device], world: int) -> tuple[int, int]:
    """Tokens of one batch, and requests at once. The larger a GPU, the more."""
    tokens, requests = (2_048, 256) if gpus else (2_048 * world, 128 * world)
    if gpus and gpus[0].total_bytes >= 70 * GIB and "a100" not in gpus[0].name.lower():
        tokens, requests = (16_384 if gpus[0].total_bytes >= 160 * GIB else 8_192), 1_024
    stated = _count(options, "max_num_batched_tokens"), _count(options, "max_num_seqs")
    times = 2 if options.get("performance_mode") == "throughput" else 1
    sequences = stated[1] or requests * times
    if stated[0] is not None:
        return stated[0], stated[1] or min(sequences, stated[0])
    tokens *= times
    if options.get("enable_chunked_prefill") is False:
        tokens = max(tokens, context)
    tokens = min(tokens, sequences * context)
    return tokens, stated[1] or min(sequences, tokens)


def _utilization(options: Mapping[str, Any]) -> float:
    share = _number(options, "gpu_memory_utilization", UTILIZATION)
    if not 0 < share <= 1:
        raise ImpossibleOption("gpu_memory_utilization", f"a share lies between 0 and 1, {share} does not")
    return share


def _cache_bytes(options: Mapping[str, Any], *, on_cpu: bool) -> int | None:
    """VLLM_CPU_KVCACHE_SPACE goes before `kv_cache_memory_bytes` (platforms/cpu.py)."""
    if on_cpu and (space := _count(options, "cpu_kv_cache_gib")):
        return space * GIB
    return _count(options, "kv_cache_memory_bytes") or None


def _cache_format(shape: VllmShape, options: Mapping[str, Any]) -> str:
    word = str(options.get("kv_cache_type") or "auto")
    if word == "auto":
        word = shape.cache_format or "auto"
    if word not in CACHE_FORMATS:
        raise ImpossibleOption("kv_cache_type", f"the size of a cache of the type '{word}' is not known here")
    return word


def _dtype_bytes(options: Mapping[str, Any], name: str) -> int:
    word = str(options.get(name) or "auto")
    if word not in DTYPE_BYTES:
        raise ImpossibleOption(name, f"'{word}' is no number format that vLLM has", known=sorted(DTYPE_BYTES))
    return DTYPE_BYTES[word]


def _stated_dtype_bytes(options: Mapping[str, Any], name: str) -> int | None:
    return None if options.get(name) in (None, "auto") else _dtype_bytes(options, name)


def _linear_bytes(shape: VllmShape, options: Mapping[str, Any]) -> float | None:
    """None where the file is quantized already: its own method is the only one that can be asked for."""
    return None if shape.quantization else ON_LOAD_BYTES.get(str(options.get("quantization")))


def _parallel(options: Mapping[str, Any], name: str) -> int:
    size = _count(options, name)
    if size is None:
        return 1
    if not 1 <= size <= MAX_WORLD:
        raise ImpossibleOption(name, f"{name} is {size}, which cannot be right")
    return size


def _count(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ImpossibleOption(name, f"{name} must be a whole number, not {value!r}")
    return value


def _number(options: Mapping[str, Any], name: str, default: float = 0.0) -> float:
    value = options.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ImpossibleOption(name, f"{name} must be a number, not {value!r}")
    return float(value)
