"""What vLLM needs beside weights and cache while it computes.

`determine_available_memory` in v1/worker/gpu_worker.py runs the model once on the largest batch
(`max_num_batched_tokens`) and samples for as many requests as may run at once, and takes the peak. Here the
largest tensors of that run are counted: what a layer holds at its widest place, and the logits. No GPU has
checked these sums; docs/fit.md says what is rough.
"""

from __future__ import annotations

from ostler.fit.vllm_settings import VllmSettings
from ostler.fit.vllm_shape import VllmShape

MIB = 1 << 20
F32_BYTES = 4
PROBABILITIES = 2
"""Copies of the logits in float32: `Sampler.forward` makes one, and one of probabilities
(v1/sample/sampler.py, ops/topk_topp_sampler.py)."""
GRAPH_BYTES_PER_LAYER = 72 * 1024
"""Of CUDA memory for each captured batch size and layer: a set sum, not a measurement."""
GRAPH_KINDS = 2
"""Graphs of whole steps and of pieces: `FULL_AND_PIECEWISE`, the default."""
MAX_GRAPH_TOKENS = 512
"""`_set_cudagraph_sizes` in config/vllm.py."""
GPU_OVERHEAD_BYTES = 256 * MIB
"""What libraries take on each GPU: a set sum."""
NCCL_BYTES = 768 * MIB
"""Buffers for the exchange between GPUs, where several work together: a set sum."""
CPU_SERVER_BYTES, CPU_WORKER_BYTES = 850 * MIB, 640 * MIB
"""On the CPU, the two processes that serve and schedule, and each one that computes: as they were measured
without a model (docs/fit.md)."""


def activation_bytes(shape: VllmShape, settings: VllmSettings) -> int:
    """The peak of one largest batch on one GPU: in the widest layer, or while sampling."""
    tokens, width, parts = settings.batch_tokens, settings.dtype_bytes, settings.tensor_parallel
    stream = tokens * shape.hidden * width
    inner = 3 * shape.activated // parts
    if shape.experts_used:
        inner += shape.experts_used * shape.hidden
    heads = (2 * shape.n_heads + 2 * shape.n_kv_heads) * shape.head // parts
    layer = 2 * stream + tokens * max(inner, heads) * width
    sampled = min(settings.sequences, tokens) * shape.vocab * (width + PROBABILITIES * F32_BYTES)
    images = stream if shape.has_vision else 0
    return max(layer, stream + sampled) + images


def graph_bytes(shape: VllmShape, settings: VllmSettings) -> int:
    """CUDA graphs on one GPU; none with `enforce_eager` or on the CPU."""
    if settings.eager or settings.on_cpu:
        return 0
    largest = min(2 * settings.sequences, MAX_GRAPH_TOKENS, settings.batch_tokens)
    layers = -(-shape.layers // settings.pipeline_parallel)
    return captured_sizes(largest) * layers * GRAPH_KINDS * GRAPH_BYTES_PER_LAYER


def captured_sizes(largest: int) -> int:
    """How many batch sizes are captured: 1, 2, 4, by 8 to 256, by 16 from there."""
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, MAX_GRAPH_TOKENS + 1, 16)]
    return sum(size <= largest for size in sizes)


def overhead_bytes(settings: VllmSettings) -> int:
    """What is taken on one device beside all that."""
    if settings.on_cpu:
        workers = settings.tensor_parallel * settings.pipeline_parallel
        return CPU_SERVER_BYTES + CPU_WORKER_BYTES * workers
    together = settings.tensor_parallel * settings.pipeline_parallel > 1
    return GPU_OVERHEAD_BYTES + (NCCL_BYTES if together else 0)
