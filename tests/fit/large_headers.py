"""Headers of models as large as people run, made in memory: an estimate reads nothing but the header."""

from __future__ import annotations

from ostler.library.ggml_types import GGML_TYPES, TensorInfo
from ostler.library.gguf_header import GgufHeader, Value

_TYPES = {row.name.lower(): row for row in GGML_TYPES.values()}


def _tensor(name: str, *shape: int, kind: str = "q4_k") -> TensorInfo:
    row = _TYPES[kind]
    elements = 1
    for n in shape:
        elements *= n
    return TensorInfo(name, shape, row.name, elements // row.block_elements * row.block_bytes, 0)


def _attention(block: str, n_embd: int, heads: int, kv_heads: int, head: int) -> list[TensorInfo]:
    return [
        _tensor(f"{block}.attn_norm.weight", n_embd, kind="f32"),
        _tensor(f"{block}.attn_q.weight", n_embd, heads * head),
        _tensor(f"{block}.attn_k.weight", n_embd, kv_heads * head),
        _tensor(f"{block}.attn_v.weight", n_embd, kv_heads * head),
        _tensor(f"{block}.attn_output.weight", heads * head, n_embd),
        _tensor(f"{block}.ffn_norm.weight", n_embd, kind="f32"),
    ]


def _header(name: str, numbers: dict[str, int], tensors: list[TensorInfo]) -> GgufHeader:
    metadata: dict[str, Value] = {"general.architecture": name, "general.type": "model"}
    metadata |= {f"{name}.{key}": value for key, value in numbers.items()}
    return GgufHeader(3, "little", metadata, tuple(tensors), 0, sum(tensor.n_bytes for tensor in tensors))


def llama_8b(*, context: int = 131_072, layers: int = 32) -> GgufHeader:
    """Like Llama 3.1 8B at 4 bits: 4.2 GiB of weights, 16 GiB of f16 cache for all of its context."""
    tensors = [
        _tensor("token_embd.weight", 4096, 128_256),
        _tensor("output_norm.weight", 4096, kind="f32"),
        _tensor("output.weight", 4096, 128_256),
    ]
    for index in range(layers):
        block = f"blk.{index}"
        tensors += _attention(block, 4096, 32, 8, 128)
        tensors += [
            _tensor(f"{block}.ffn_gate.weight", 4096, 14_336),
            _tensor(f"{block}.ffn_up.weight", 4096, 14_336),
            _tensor(f"{block}.ffn_down.weight", 14_336, 4096),
        ]
    numbers = {
        "block_count": layers,
        "context_length": context,
        "embedding_length": 4096,
        "feed_forward_length": 14_336,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
        "rope.dimension_count": 128,
    }
    return _header("llama", numbers, tensors)


def qwen3_moe_30b() -> GgufHeader:
    """Like Qwen3 30B A3B at 4 bits: 16 GiB, nearly all of it experts."""
    tensors = [
        _tensor("token_embd.weight", 2048, 151_936),
        _tensor("output_norm.weight", 2048, kind="f32"),
        _tensor("output.weight", 2048, 151_936),
    ]
    for index in range(48):
        block = f"blk.{index}"
        tensors += _attention(block, 2048, 32, 4, 128)
        tensors += [
            _tensor(f"{block}.attn_q_norm.weight", 128, kind="f32"),
            _tensor(f"{block}.attn_k_norm.weight", 128, kind="f32"),
            _tensor(f"{block}.ffn_gate_inp.weight", 2048, 128, kind="f32"),
            _tensor(f"{block}.ffn_gate_exps.weight", 2048, 768, 128),
            _tensor(f"{block}.ffn_up_exps.weight", 2048, 768, 128),
            _tensor(f"{block}.ffn_down_exps.weight", 768, 2048, 128),
        ]
    numbers = {
        "block_count": 48,
        "context_length": 40_960,
        "embedding_length": 2048,
        "feed_forward_length": 6144,
        "expert_feed_forward_length": 768,
        "expert_count": 128,
        "expert_used_count": 8,
        "attention.head_count": 32,
        "attention.head_count_kv": 4,
        "attention.key_length": 128,
        "attention.value_length": 128,
    }
    return _header("qwen3moe", numbers, tensors)
