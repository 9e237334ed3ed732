"""A plain sum for models that `estimate.py` does not count yet: safetensors, from their facts alone.

Weights are exact, from the files' headers; the cache is one key and one value of `n_kv_heads` times the
head size for each token and layer; the compute buffer is a rule of thumb. For one device only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ostler.library.facts import ModelFacts

DEFAULT_UBATCH_TOKENS = 512
F32_BYTES = 4
BYTES_PER_ELEMENT: Mapping[str, float] = {
    "f32": 4,
    "f16": 2,
    "bf16": 2,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes of one cached element by cache type; quantized types store blocks of 32 (ggml)."""


@dataclass(frozen=True, slots=True)
class PlainNeeds:
    """Memory in bytes. `kv_cache_bytes` is None where the header does not say enough."""

    context_length: int | None
    weights_bytes: int
    kv_cache_bytes: int | None
    compute_bytes: int | None
    total_bytes: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


def plain_needs(facts: ModelFacts, options: Mapping[str, Any]) -> PlainNeeds:
    """What a model with these engine options needs, in bytes, on whatever device it runs.

    `options` are canonical engine options; of them `context_length`, `kv_cache_type`,
    `kv_cache_type_k`, `kv_cache_type_v` and `ubatch_size` count.
    """
    context = options.get("context_length") or facts.context_length
    kv_cache = _kv_cache_bytes(facts, context, options) if context else None
    compute = _compute_bytes(facts, options)
    return PlainNeeds(
        context_length=context,
        weights_bytes=facts.weights_bytes,
        kv_cache_bytes=kv_cache,
        compute_bytes=compute,
        total_bytes=facts.weights_bytes + (kv_cache or 0) + (compute or 0),
    )


def _kv_cache_bytes(facts: ModelFacts, context: int, options: Mapping[str, Any]) -> int | None:
    heads = facts.n_kv_heads or facts.n_heads
    if not facts.block_count or not heads or not facts.head_dim_k or not facts.head_dim_v:
        return None
    per_token = heads * (
        facts.head_dim_k * _element_bytes(options, "kv_cache_type_k")
        + facts.head_dim_v * _element_bytes(options, "kv_cache_type_v")
    )
    return int(facts.block_count * context * per_token)


def _element_bytes(options: Mapping[str, Any], name: str) -> float:
    kind = options.get(name) or options.get("kv_cache_type") or "f16"
    return BYTES_PER_ELEMENT.get(str(kind), BYTES_PER_ELEMENT["f16"])


def _compute_bytes(facts: ModelFacts, options: Mapping[str, Any]) -> int | None:
    if not facts.embedding_length:
        return None
    tokens = options.get("ubatch_size") or DEFAULT_UBATCH_TOKENS
    widest = max(facts.vocab_size or 0, 4 * facts.embedding_length)
    return int(tokens) * widest * F32_BYTES
