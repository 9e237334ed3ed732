"""What llama.cpp makes of the options: numbers that the estimate counts with.

It follows the engine: `server.cpp` fills in slots and batches, the constructor of `llama_context`
(llama-context.cpp) rounds the context, and `llama_kv_cache_iswa` (llama-kv-cache-iswa.cpp) sizes the
window's cache. Option names are ours (`engines/llamacpp_options`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ostler.fit.drafting import most_drafted
from ostler.fit.errors import ImpossibleOption
from ostler.fit.model_shape import ModelShape
from ostler.library.ggml_types import GGML_TYPES, GgmlType

CONTEXT_STEP = 256
"""`GGML_PAD(n_ctx, 256)` in the constructor of llama_context."""
AUTO_SLOTS = 4
DEFAULT_BATCH, DEFAULT_UBATCH = 2_048, 512
MAX_SLOTS = 256
"""`LLAMA_MAX_SEQ` in llama-cparams.h."""
MAX_CONTEXT = 1 << 30
_TYPES: Mapping[str, GgmlType] = {row.name.lower(): row for row in GGML_TYPES.values()}


@dataclass(frozen=True, slots=True)
class CacheType:
    """How cached keys or values are stored."""

    row: GgmlType

    def bytes_of(self, elements: int) -> int:
        """Bytes of a row of so many elements; whole blocks, as ggml_row_size counts them."""
        return -(-elements // self.row.block_elements) * self.row.block_bytes

    @property
    def quantized(self) -> bool:
        """True for types that store blocks."""
        return self.row.block_elements > 1


@dataclass(frozen=True, slots=True)
class Settings:
    """One launch, in the engine's terms. All counts are tokens unless the name says otherwise.

    `context` is over all slots, `cells` what one stream of the cache holds, `window_cells` the same for
    layers with a sliding window; `streams` is how many such caches there are. `batch_tokens` is what
    the compute buffer is reserved for, `outputs` how many of them give logits.
    """

    context: int
    slots: int
    streams: int
    cells: int
    window_cells: int
    batch_tokens: int
    outputs: int
    output_rows: int
    embeddings: bool
    flash_attention: bool
    type_k: CacheType
    type_v: CacheType

    @classmethod
    def of(cls, shape: ModelShape, options: Mapping[str, Any]) -> Settings:
        """Read canonical options for one model. Raises ImpossibleOption."""
        slots, unified = _slots(options)
        wanted = _count(options, "context_length", 0, MAX_CONTEXT)
        wanted = wanted or slots * _count(options, "kv_unified_per_slot", 0, MAX_CONTEXT)
        wanted = wanted or shape.trained_context
        cells = _padded(wanted) if unified else _padded(_padded(wanted) // slots)
        streams = 1 if unified else slots
        embeddings = bool(options.get("embeddings") or options.get("reranking"))
        batch, ubatch = _batches(shape, options, wanted, embeddings)
        tokens = -(-min(cells * streams, ubatch) // slots) * slots
        checked = slots * (1 + most_drafted(options))
        outputs = min(cells * streams, ubatch, batch if embeddings else min(batch, checked))
        window = _padded(min(cells, shape.window_tokens * (slots if unified else 1) + ubatch))
        return cls(
            context=cells * streams,
            slots=slots,
            streams=streams,
            cells=cells,
            window_cells=cells if options.get("swa_full") else window,
            batch_tokens=tokens,
            outputs=outputs,
            output_rows=slots,
            embeddings=embeddings,
            flash_attention=options.get("flash_attention") != "off",
            type_k=_cache_type(options, "kv_cache_type_k"),
            type_v=_cache_type(options, "kv_cache_type_v"),
        )


def _slots(options: Mapping[str, Any]) -> tuple[int, bool]:
    """How many slots, and whether they share one cache."""
    stated = options.get("parallel_slots")
    if stated is None or (isinstance(stated, int) and stated < 0):
        return AUTO_SLOTS, True
    slots = _count(options, "parallel_slots", 1, MAX_SLOTS) or 1
    return slots, bool(options.get("kv_unified")) or slots == 1


def _batches(
    shape: ModelShape, options: Mapping[str, Any], context: int, embeddings: bool
) -> tuple[int, int]:
    """The logical and the physical batch."""
    batch = _count(options, "batch_size", DEFAULT_BATCH, MAX_CONTEXT)
    ubatch = _count(options, "ubatch_size", DEFAULT_UBATCH, MAX_CONTEXT) or batch
    if embeddings:
        batch = min(batch, ubatch)
    if shape.causal:
        batch = min(batch, context)
    return batch, min(batch, ubatch)


def _cache_type(options: Mapping[str, Any], name: str) -> CacheType:
    word = str(options.get(name) or options.get("kv_cache_type") or "f16").lower()
    row = _TYPES.get(word)
    if row is None:
        raise ImpossibleOption(name, f"'{word}' is no type of cache that llama.cpp has")
    return CacheType(row)


def _count(options: Mapping[str, Any], name: str, default: int, limit: int) -> int:
    value = options.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ImpossibleOption(name, f"{name} must be a whole number, not {value!r}")
    if value > limit:
        raise ImpossibleOption(name, f"{name} is {value}, more than the {limit} that can be right")
    return value


def _padded(tokens: int) -> int:
    return -(-tokens // CONTEXT_STEP) * CONTEXT_STEP
