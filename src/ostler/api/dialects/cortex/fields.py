"""The fields of a model in Cortex's API, as data: a row says where in our record its value lives.

Everything is read from these rows: the shapes of the bodies that make and change a model, how a body becomes
a record (`records.py`), and how a record is shown. A `place` is `DOCUMENT.NAME`, a document of ours and a
key in it; `kept` is for what means nothing here and is given back as it was sent; any other word names a
group of fields that only make sense together (`groups.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ostler.api.dialects.cortex.translations import (
    CSV_NUMBERS,
    CSV_WORDS,
    INVERTED,
    ON_OFF,
    ONLY_DEBUG,
    PATH,
    SAME,
    SECONDS,
    WHOLE_CSV,
    Translation,
)

VLLM, LLAMACPP = "vllm", "llamacpp"
KEPT = "kept"
IDENTITY, DEVICES, LOADING, TRACING, LORA, ARGUMENTS, ENVIRONMENT, DEFAULTS = (
    "identity",
    "devices",
    "loading",
    "tracing",
    "lora",
    "arguments",
    "environment",
    "defaults",
)
JSON = str | list[Any] | dict[str, Any]
"""Cortex stores these as texts; its clients may send what is in the text instead."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `engine` None: both have it. `default`: of a body that makes a model and leaves it out.

    `can_change`: it may stand in a body that changes a model; with the others it is passed over.
    """

    name: str
    kind: Any
    place: str
    engine: str | None = None
    translation: Translation = SAME
    default: Any = None
    can_change: bool = True

    @property
    def document(self) -> tuple[str, str] | None:
        """Document and key of our record; None where it belongs to a group, or is only kept."""
        document, dot, key = self.place.partition(".")
        return (document, key) if dot else None


def _rows(engine: str | None, *rows: tuple[Any, ...], **more: Any) -> Iterator[Field]:
    for name, kind, place, *rest in rows:
        yield Field(name, kind, place, engine, *rest, **more)


SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)

FIELDS: tuple[Field, ...] = (
    *_rows(
        None,
        ("mode", str, IDENTITY),
        ("repo_id", str, IDENTITY),
        ("local_path", str, IDENTITY),
        ("task", str, IDENTITY, SAME, "generate"),
        ("engine_type", str, IDENTITY, SAME, VLLM),
        can_change=False,
    ),
    *_rows(
        None,
        ("name", str, IDENTITY),
        ("served_model_name", str, IDENTITY),
        ("selected_gpus", list[int], DEVICES),
        ("engine_image", str, "runtime_options.image"),
        ("engine_version", str, KEPT),
        ("engine_digest", str, KEPT),
        ("hf_token", str, "env.HF_TOKEN"),
        ("hf_offline", bool, KEPT),
        ("startup_timeout_sec", float, "policy.start_timeout_s", SECONDS),
        ("request_timeout_sec", float, "policy.request_timeout_s", SECONDS),
        ("stream_timeout_sec", float, "policy.stream_timeout_s", SECONDS),
        ("engine_startup_args_json", JSON, ARGUMENTS),
        ("engine_startup_env_json", JSON, ENVIRONMENT),
        ("request_defaults_json", JSON, DEFAULTS),
        ("custom_request_json", JSON, DEFAULTS),
        *((name, int if name == "top_k" else float, DEFAULTS) for name in SAMPLING),
        ("system_prompt", str, DEFAULTS),
    ),
    *_rows(
        VLLM,
        ("tp_size", int, "options.tensor_parallel_size", SAME, 1),
        ("gpu_memory_utilization", float, "options.gpu_memory_utilization", SAME, 0.9),
        ("dtype", str, "options.dtype"),
        ("max_model_len", int, "options.context_length"),
        ("tokenizer", str, "options.tokenizer"),
        ("hf_config_path", str, "options.hf_config_path"),
        ("trust_remote_code", bool, "options.trust_remote_code"),
        ("kv_cache_dtype", str, "options.kv_cache_type"),
        ("max_num_batched_tokens", int, "options.max_num_batched_tokens"),
        ("quantization", str, "options.quantization"),
        ("block_size", int, "options.block_size"),
        ("swap_space_gb", float, "options.swap_space_gb"),
        ("enforce_eager", bool, "options.enforce_eager"),
        ("cpu_offload_gb", float, "options.cpu_offload_gb"),
        ("enable_prefix_caching", bool, "options.enable_prefix_caching"),
        ("prefix_caching_hash_algo", str, "options.prefix_caching_hash_algo"),
        ("enable_chunked_prefill", bool, "options.enable_chunked_prefill"),
        ("max_num_seqs", int, "options.max_num_seqs"),
        ("cuda_graph_sizes", str, "options.cudagraph_capture_sizes", WHOLE_CSV),
        ("pipeline_parallel_size", int, "options.pipeline_parallel_size"),
        ("device", str, DEVICES),
        ("attention_backend", str, "options.attention_backend"),
        ("disable_log_requests", bool, "options.enable_log_requests", INVERTED),
        ("disable_log_stats", bool, "options.disable_log_stats"),
        ("vllm_v1_enabled", bool, "options.vllm_v1_enabled"),
        ("gguf_weight_format", str, "options.gguf_weight_format"),
        ("entrypoint_override", str, "engine_command.", CSV_WORDS),
        ("debug_logging", bool, "options.logging_level", ONLY_DEBUG),
        ("trace_mode", bool, TRACING),
        ("engine_request_timeout", int, "options.engine_request_timeout"),
        ("max_log_len", int, "options.max_log_len"),
    ),
    *_rows(
        LLAMACPP,
        ("ngl", int, "options.gpu_layers"),
        ("tensor_split", str, "options.tensor_split", CSV_NUMBERS),
        ("split_mode", str, "options.split_mode"),
        ("batch_size", int, "options.batch_size", SAME, 512),
        ("ubatch_size", int, "options.ubatch_size"),
        ("threads", int, "options.threads"),
        ("context_size", int, "options.context_length", SAME, 8192),
        ("parallel_slots", int, "options.parallel_slots"),
        ("rope_freq_base", float, "options.rope_freq_base"),
        ("rope_freq_scale", float, "options.rope_freq_scale"),
        ("flash_attention", bool, "options.flash_attention", ON_OFF, True),
        ("mlock", bool, LOADING, SAME, False),
        ("no_mmap", bool, LOADING, SAME, False),
        ("numa_policy", str, "options.numa"),
        ("cache_type_k", str, "options.kv_cache_type_k"),
        ("cache_type_v", str, "options.kv_cache_type_v"),
        ("draft_model_path", str, "options.draft_model", PATH),
        ("draft_n", int, "options.spec_draft_n_max"),
        ("draft_p_min", float, "options.spec_draft_p_min"),
        ("verbose_logging", bool, "options.verbose"),
        ("check_tensors", bool, "options.check_tensors"),
        ("skip_warmup", bool, "options.warmup", INVERTED),
        ("chat_template", str, "options.chat_template"),
        ("chat_template_file", str, "options.chat_template_file", PATH),
        ("jinja_enabled", bool, "options.jinja"),
        ("defrag_thold", float, "options.defrag_thold"),
        ("lora_adapters_json", JSON, LORA),
        ("lora_init_without_apply", bool, "options.lora_init_without_apply"),
        ("grammar_file", str, "options.grammar_file", PATH),
        ("enable_embeddings", bool, "options.embeddings"),
        ("cont_batching", bool, "options.cont_batching"),
    ),
)

BY_NAME = {field.name: field for field in FIELDS}


def fields_of(engine: str) -> tuple[Field, ...]:
    """The fields that mean something to this engine; for one that Cortex does not know, those of both."""
    return _OF_ENGINE.get(engine) or _OF_BOTH


_OF_BOTH = tuple(field for field in FIELDS if field.engine is None)
_OF_ENGINE = {
    engine: tuple(field for field in FIELDS if field.engine in (None, engine)) for engine in (VLLM, LLAMACPP)
}
PLACES = {
    engine: tuple((field, *field.document) for field in fields if field.document is not None)
    for engine, fields in _OF_ENGINE.items()
}
"""Of each engine, the fields that have a place of their own, with their document and key."""
