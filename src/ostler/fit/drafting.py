"""Speculative decoding: what of the options counts for memory.

A drafting model is loaded as a second model with the context of the first
(`common_base_params_to_speculative` and `common_speculative_init_result` in common/speculative.cpp).
Drafted tokens are checked in one batch, so more of a batch gives logits (`server_output_limits`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DRAFTED: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(
        ("draft-simple", "draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark"), ("spec_draft_n_max", 3)
    ),
    "ngram-simple": ("spec_ngram_simple_size_m", 48),
    "ngram-map-k": ("spec_ngram_map_k_size_m", 48),
    "ngram-map-k4v": ("spec_ngram_map_k4v_size_m", 48),
    "ngram-mod": ("spec_ngram_mod_n_max", 64),
    "ngram-cache": ("", 8),
}
"""By way of drafting: the option that says how many tokens at most, and its default."""

_OWN = {
    "devices": ("draft_devices", "devices"),
    "gpu_layers": ("draft_gpu_layers",),
    "kv_cache_type_k": ("draft_kv_cache_type_k",),
    "kv_cache_type_v": ("draft_kv_cache_type_v",),
    "cpu_moe": ("draft_cpu_moe",),
    "n_cpu_moe": ("draft_n_cpu_moe",),
    "override_tensor": ("draft_override_tensor",),
}
"""Options of the drafting model under their usual names; of several the first that is given counts."""
_NOT_ITS = (
    *("kv_cache_type", "n_cpu_ffn", "kv_unified_per_slot", "embeddings", "reranking", "spec_type"),
    *("spec_default", "draft_model", "mmproj", "lora", "lora_scaled"),
)


def ways(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The ways of drafting that the options name."""
    stated = options.get("spec_type") or []
    named = stated.split(",") if isinstance(stated, str) else [str(one) for one in stated]
    return (*named, *(("ngram-mod",) if options.get("spec_default") else ()))


def most_drafted(options: Mapping[str, Any]) -> int:
    """How many tokens are drafted at once for one slot: `common_speculative_n_max`."""
    most = 0
    for way in ways(options):
        name, default = _DRAFTED.get(way, ("", 0))
        stated = options.get(name)
        most = max(most, stated if isinstance(stated, int) else default)
    return most


def draft_options(options: Mapping[str, Any], context: int) -> dict[str, Any]:
    """The options with which the drafting model is loaded beside a model with `context` tokens.

    Where its GPU layers are left open all go to the GPUs, if there are any.
    """
    kept = {name: value for name, value in options.items() if name not in _NOT_ITS and name not in _OWN}
    for name, sources in _OWN.items():
        given = [options[source] for source in sources if options.get(source) is not None]
        if given:
            kept[name] = given[0]
    if kept.get("gpu_layers") in (None, "auto", -1):
        kept["gpu_layers"] = "all"
    return {**kept, "context_length": context}
