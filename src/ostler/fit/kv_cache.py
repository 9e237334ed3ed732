"""What a layer keeps between tokens, in bytes.

Keys and values: `llama_kv_cache` (llama-kv-cache.cpp), one tensor of each for a layer, of
`cells x streams` rows. Without flash attention values lie transposed and every layer is as wide as the
widest. MLA caches the compressed vector alone. A recurrent layer keeps two f32 rows for each slot
(`llama_memory_recurrent`).
"""

from __future__ import annotations

from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

_F32_BYTES = 4


def layer_cache_bytes(shape: ModelShape, layer: Layer, settings: Settings) -> int:
    """What one layer caches for all slots: keys, values, recurrent state."""
    total = 0
    if layer.recurrent:
        total += settings.slots * (shape.conv_elements + shape.state_elements) * _F32_BYTES
    if layer.kv:
        total += _attention_bytes(shape, layer, settings)
    return total


def _attention_bytes(shape: ModelShape, layer: Layer, settings: Settings) -> int:
    rows = cells_of(layer, settings) * settings.streams
    keys = rows * settings.type_k.bytes_of(layer.k_elements)
    if shape.mla:
        return keys
    wide = layer.v_elements if settings.flash_attention else shape.widest_values
    return keys + rows * settings.type_v.bytes_of(wide)


def cells_of(layer: Layer, settings: Settings) -> int:
    """Tokens that one stream of the layer's cache holds."""
    return settings.window_cells if layer.sliding else settings.cells
