"""LoRA adapters: two small matrices for each matrix that they change.

Both lie where the matrix lies (`llama_adapter_lora_init_impl` in llama-adapter.cpp).
"""

from __future__ import annotations

from collections.abc import Sequence

from ostler.fit.model_shape import aligned_bytes
from ostler.fit.placement import HOST, Placement
from ostler.library.gguf_header import GgufHeader

_ENDS = (".lora_a", ".lora_b")


def adapter_bytes(adapters: Sequence[GgufHeader], placement: Placement, where: int) -> int:
    """The weights of adapters at a place."""
    return sum(
        aligned_bytes(tensor, gpu=where != HOST)
        for adapter in adapters
        for tensor in adapter.tensors
        if tensor.name.endswith(_ENDS) and placement.place_of(tensor.name[: -len(".lora_a")]) == where
    )
