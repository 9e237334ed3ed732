"""What one number takes under vLLM: number formats of weights and of the cache, as rows.

Names are those of vLLM 0.32.0: `CacheDType` in config/cache.py, `QuantizationMethods` in
model_executor/layers/quantization/__init__.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DTYPE_BYTES: Mapping[str, int] = {
    "auto": 2,
    "half": 2,
    "float16": 2,
    "bfloat16": 2,
    "float": 4,
    "float32": 4,
}
"""Bytes of a number that is not quantized, by the option `dtype`.

`auto` takes bfloat16 or float16 for float32 files too (`_resolve_auto_dtype` in config/model.py).
"""


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """How one head's key or value of one token is stored.

    `element` bytes for each number, where None means the model's own; `head` bytes more for each head.
    `token` is set where the bytes of a token do not depend on the model: MLA's packed formats.
    """

    element: float | None
    head: int = 0
    token: int | None = None


_FP8 = CacheFormat(1)
CACHE_FORMATS: Mapping[str, CacheFormat] = {
    "auto": CacheFormat(None),
    "float16": CacheFormat(2),
    "bfloat16": CacheFormat(2),
    "fp8": _FP8,
    "fp8_e4m3": _FP8,
    "fp8_e5m2": _FP8,
    "fp8_inc": _FP8,
    "fp8_ds_mla": CacheFormat(1, token=656),
    "nvfp4_ds_mla": CacheFormat(1, token=352),
    "int8_per_token_head": CacheFormat(1, head=4),
    "fp8_per_token_head": CacheFormat(1, head=4),
    "int4_per_token_head": CacheFormat(0.5, head=4),
    "nvfp4": CacheFormat(9 / 16),
    "nvfp4_4over6": CacheFormat(9 / 16),
}
"""Scales of `*_per_token_head` are one float32 beside each head (`customize_spec` in
v1/attention/backends/triton_attn.py), of nvfp4 one byte for 16 numbers (flashinfer.py); the sizes of
packed MLA tokens are from `get_kv_cache_spec` in model_executor/layers/attention/mla_attention.py."""

ON_LOAD_BYTES: Mapping[str, float] = {
    "fp8": 1.0,
    "fp8_per_tensor": 1.0,
    "fp8_per_channel": 1.0,
    "fp8_per_block": 1.0 + 4 / (128 * 128),
    "mxfp8": 1.0 + 1 / 32,
    "int8_per_channel_weight_only": 1.0,
    "nvfp4_per_token": 0.5 + 1 / 16,
    "bitsandbytes": 0.5 + 4 / 64,
}
"""Bytes of one weight of a linear layer that vLLM quantizes while it loads a plain file, scales included.

bitsandbytes is not in vLLM 0.32 any more, but in versions before it: 4 bits, and a float32 for 64 weights.
"""

STORED_AS_THEY_ARE = frozenset(
    (
        *("BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16"),
        *("F8_E4M3FNUZ", "F8_E5M2FNUZ", "I32", "U32", "I64", "U64", "C64"),
    )
)
"""Number formats of files that are kept; the others become the model's own."""
