"""Reading a Hugging Face `config.json` (and what stands beside it) into facts.

Names differ from architecture to architecture; each fact has a row of the names that it goes by.
Models for images or sound keep the language part in a nested object (`text_config`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ostler.library.bounded_json import read_json_object
from ostler.library.facts import ModelFacts
from ostler.library.gguf_header import MAX_COUNT
from ostler.library.summaries import Summary, clean

MAX_CONFIG_BYTES = 4 * 1024 * 1024
NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")

_NAMES: Mapping[str, tuple[str, ...]] = {
    "context_length": ("max_position_embeddings", "max_sequence_length", "n_positions", "max_seq_len",
                       "seq_length", "n_ctx"),
    "block_count": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "n_heads": ("num_attention_heads", "n_head", "n_heads"),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_head_kv"),
    "head_dim_k": ("head_dim", "kv_channels"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_used": ("num_experts_per_tok", "num_experts_per_token"),
}  # fmt: skip


def summarize_config(path: Path) -> Summary:
    """Read a `config.json`. Raises PathNotFound, BrokenFile."""
    return summary_of_config(read_json_object(path, MAX_CONFIG_BYTES))


def summary_of_config(config: Mapping[str, Any]) -> Summary:
    """What a parsed `config.json` says.

    `counts` holds "bits" (of a quantized weight) where the file names them.
    """
    text = language_part(config)
    values: dict[str, Any] = {fact: _first_count(names, text, config) for fact, names in _NAMES.items()}
    if values["head_dim_k"] is None and values["embedding_length"] and values["n_heads"]:
        values["head_dim_k"] = values["embedding_length"] // values["n_heads"]
    values["head_dim_v"] = _first_count(("v_head_dim",), text, config) or values["head_dim_k"]
    values["n_kv_heads"] = values["n_kv_heads"] or values["n_heads"]
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    method, bits = _quantization(config.get("quantization_config") or text.get("quantization_config"))
    facts = ModelFacts(
        format="safetensors",
        architecture=clean(architecture) or clean(config.get("model_type")),
        quantization=method,
        capabilities=_capabilities(config, clean(architecture) or ""),
        **values,
    )
    return Summary(facts=facts, counts={"bits": bits} if bits else {})


def summarize_adapter_config(path: Path) -> Summary:
    """Read the `adapter_config.json` of a LoRA. Raises PathNotFound, BrokenFile."""
    return summary_of_adapter_config(read_json_object(path, MAX_CONFIG_BYTES))


def summary_of_adapter_config(config: Mapping[str, Any]) -> Summary:
    """What a parsed `adapter_config.json` says."""
    return Summary(
        facts=ModelFacts(
            format="safetensors",
            kind="lora",
            architecture=clean(config.get("peft_type")),
            name=clean(config.get("base_model_name_or_path")),
        )
    )


def with_template(facts: ModelFacts, template: str | None) -> ModelFacts:
    """The same facts, knowing the chat template's text."""
    if template is None:
        return facts
    words = ("chat", "tools") if "tools" in template else ("chat",)
    return replace(facts, chat_template=True, capabilities=(*words, *facts.capabilities))


def language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that describes the language model: nested where there is more, else the whole."""
    for name in NESTED:
        nested = config.get(name)
        if isinstance(nested, dict):
            deeper = nested.get("text_config")
            return deeper if isinstance(deeper, dict) else nested
    return config


def _first_count(names: tuple[str, ...], *places: Mapping[str, Any]) -> int | None:
    for place in places:
        for name in names:
            value = place.get(name)
            if isinstance(value, list):
                value = max((n for n in value if type(n) is int), default=None)
            if type(value) is int and 0 < value < MAX_COUNT:
                return value
    return None


def _quantization(found: Any) -> tuple[str | None, int | None]:
    """The method's name in lower case and the bits of one packed weight."""
    if not isinstance(found, dict):
        return None, None
    method = clean(found.get("quant_method"), 40)
    bits = found.get("bits") or found.get("w_bit")
    if found.get("load_in_4bit") is True or found.get("_load_in_4bit") is True:
        bits = 4
    groups = found.get("config_groups")
    if bits is None and isinstance(groups, dict):
        for group in groups.values():
            weights = group.get("weights") if isinstance(group, dict) else None
            if isinstance(weights, dict):
                bits = weights.get("num_bits")
                break
    if bits is None and method in ("mxfp4", "nvfp4", "awq"):
        bits = 4
    known = type(bits) is int and 0 < bits <= 32
    return method.lower() if method else None, bits if known else None


def _capabilities(config: Mapping[str, Any], architecture: str) -> tuple[str, ...]:
    found = []
    if isinstance(config.get("vision_config"), dict):
        found.append("vision")
    if isinstance(config.get("audio_config"), dict):
        found.append("audio")
    if architecture.endswith("ForSequenceClassification"):
        found.append("rerank")
    elif architecture.startswith(
        ("Bert", "XLMRoberta", "Roberta", "Nomic", "ModernBert")
    ) or architecture.endswith(("Model", "EmbeddingModel")):
        found.append("embeddings")
    return tuple(found)
