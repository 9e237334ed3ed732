"""LoRA adapters: two small matrices for each matrix that they change.

Both lie where the matrix lies (`llama_adapter_lora_init_impl` in llama-adapter.cpp). In use each product
gets a second one of the same size, which is added to it (`build_lora_mm` in llama-graph.cpp).
"""

from __future__ import annotations

from collections.abc import Sequence

from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import aligned_bytes
from ostler.fit.placement import HOST, Placement
from ostler.library.gguf_header import GgufHeader

_ENDS = (".lora_a", ".lora_b")
_F32_BYTES = 4


def adapter_bytes(adapters: Sequence[GgufHeader], placement: Placement, where: int) -> int:
    """The weights of adapters at a place."""
    return sum(
        aligned_bytes(tensor, gpu=where != HOST)
        for adapter in adapters
        for tensor in adapter.tensors
        if tensor.name.endswith(_ENDS) and placement.place_of(tensor.name[: -len(".lora_a")]) == where
    )


def adapter_compute_bytes(adapters: Sequence[GgufHeader], settings: Settings) -> int:
    """What the compute buffer grows by at the most: one more of the widest product that is changed."""
    widest = max(
        (
            tensor.shape[1]
            for adapter in adapters
            for tensor in adapter.tensors
            if tensor.name.endswith(".lora_b") and len(tensor.shape) > 1
        ),
        default=0,
    )
    return settings.batch_tokens * widest * _F32_BYTES
