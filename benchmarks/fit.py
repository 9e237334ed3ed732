"""How long an estimate of memory takes, for models with many layers on GPUs that are too small for them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ostler.fit.devices import Device
from ostler.fit.model_shape import ModelShape
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader
from tests.fit.estimates import estimate, sweep
from tests.fit.small_models import Sizes, write_model

GIB = 1 << 30
MODELS = {"llama": 80, "qwen3moe": 94, "gemma3": 62, "deepseek2": 61}
"""Layers by architecture, as in the largest models of each."""
SCALE = 64
"""Small files are written, and their headers are read as if every width were so many times larger."""
NARROW = Sizes(n_embd=64, n_ff=256, head=32, heads=2, kv_heads=1, rank=32, n_ff_expert=32)
CONTEXTS = [1_024 * step for step in range(1, 21)]
_WIDTHS = ("embedding_length", "feed_forward_length", "key_length", "value_length", "lora_rank", "_mla")
_TIMES = 7


def measure() -> dict[str, Any]:
    """Milliseconds of CPU time, the best of several."""
    found: dict[str, Any] = {}
    for name, layers in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write_model(Path(folder), name, replace(NARROW, layers=layers))
            shape = ModelShape.of([_widened(read_gguf_header(path))])
        half = estimate(shape, {}, []).host.total_bytes // 2
        devices = [
            Device("cuda:0", "GPU", "cuda", half, half),
            Device("cpu", "host", "cpu", GIB << 9, GIB << 9),
        ]
        found[name] = {
            "one_ms": _best_ms(lambda: estimate(shape, {}, devices)),  # noqa: B023 - called at once
            "sweep_of_20_ms": _best_ms(lambda: sweep(shape, {}, devices, CONTEXTS)),  # noqa: B023
        }
    return {**found, "slowest": {key: max(row[key] for row in found.values()) for key in found["llama"]}}


def _widened(header: GgufHeader) -> GgufHeader:
    numbers = {
        key: value * SCALE if isinstance(value, int) and key.endswith(_WIDTHS) else value
        for key, value in header.metadata.items()
    }
    tensors = []
    for tensor in header.tensors:
        wide = tuple(size * SCALE if size in (32, 64, 128, 256) else size for size in tensor.shape)
        times = 1
        for before, after in zip(tensor.shape, wide, strict=True):
            times *= after // before
        tensors.append(replace(tensor, shape=wide, n_bytes=tensor.n_bytes * times))
    return replace(header, metadata=numbers, tensors=tuple(tensors))


def _best_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_TIMES):
        begun = time.thread_time()
        work()
        times.append(time.thread_time() - begun)
    return round(min(times) * 1000, 1)
