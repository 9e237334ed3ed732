"""A model as Cortex's create body and its table have it, as a model of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ostler.core.errors import InvalidField
from ostler.models.records import NewModel

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)

VLLM_OPTIONS = (
    "dtype",
    "max_model_len",
    "tokenizer",
    "hf_config_path",
    "trust_remote_code",
    "tp_size",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "max_num_batched_tokens",
    "quantization",
    "block_size",
    "swap_space_gb",
    "enforce_eager",
    "cpu_offload_gb",
    "enable_prefix_caching",
    "prefix_caching_hash_algo",
    "enable_chunked_prefill",
    "max_num_seqs",
    "pipeline_parallel_size",
    "attention_backend",
    "disable_log_requests",
    "disable_log_stats",
    "vllm_v1_enabled",
    "debug_logging",
    "trace_mode",
    "engine_request_timeout",
    "max_log_len",
)

LLAMACPP_OPTIONS = (
    "ngl",
    "tensor_split",
    "split_mode",
    "batch_size",
    "ubatch_size",
    "threads",
    "context_size",
    "parallel_slots",
    "rope_freq_base",
    "rope_freq_scale",
    "flash_attention",
    "mlock",
    "no_mmap",
    "numa_policy",
    "cache_type_k",
    "cache_type_v",
    "draft_model_path",
    "draft_n",
    "draft_p_min",
    "verbose_logging",
    "check_tensors",
    "skip_warmup",
    "chat_template",
    "chat_template_file",
    "jinja_enabled",
    "lora_init_without_apply",
    "grammar_file",
    "enable_embeddings",
    "cont_batching",
)
"""Fields whose names our option tables know as other names of their options."""

_PLACED = {
    *SAMPLING,
    "id",
    "name",
    "served_model_name",
    "task",
    "engine_type",
    "mode",
    "repo_id",
    "local_path",
    "hf_token",
    "request_defaults_json",
    "custom_request_json",
    "engine_startup_args_json",
    "engine_startup_env_json",
    "startup_timeout_sec",
    "state",
    "archived",
    "port",
    "container_name",
    "created_at",
    "updated_at",
}


def new_model_of(row: Mapping[str, Any]) -> NewModel:
    """The record of a row of Cortex's table `models`, or of the body that makes one.

    What has no place in a record of ours is kept in `dialect_data`, so that nothing is lost; but
    `hf_token` is nowhere: the hub's token is a setting, and engines are not given another. Raises
    InvalidField for JSON that cannot be read.
    """
    engine = "llamacpp" if row.get("engine_type") == "llamacpp" else "vllm"
    fields = LLAMACPP_OPTIONS if engine == "llamacpp" else VLLM_OPTIONS
    name = str(row.get("served_model_name") or row.get("name") or "")
    placed = _PLACED | set(fields)
    kept = {key: value for key, value in row.items() if key not in placed and value is not None}
    if row.get("name") not in (None, "", name):
        kept["name"] = row["name"]
    return NewModel(
        source=_source(row),
        name=name,
        engine=engine,
        task=str(row.get("task") or "generate"),
        options={key: row[key] for key in fields if row.get(key) is not None},
        extra_args=_arguments(row.get("engine_startup_args_json")),
        env=_environment(row.get("engine_startup_env_json")),
        request_defaults=_defaults(row),
        policy={"start_timeout_s": row["startup_timeout_sec"]} if row.get("startup_timeout_sec") else {},
        origin="cortex",
        dialect_data={"cortex": kept} if kept else {},
    )


def _source(row: Mapping[str, Any]) -> dict[str, Any]:
    """A path inside the models folder, or a repo."""
    path = str(row.get("local_path") or "").removeprefix("/models/").lstrip("/")
    if path and row.get("mode") != "online":
        return {"path": path}
    return {"hub": str(row.get("repo_id") or "")}


def _arguments(text: Any) -> tuple[str, ...]:
    """`[{flag, type, value}]` as arguments; a flag that is off is left out."""
    found: list[str] = []
    entries: list[Mapping[str, Any]] = _json("engine_startup_args_json", text, list) or []
    for entry in entries:
        flag: str = str(entry.get("flag") or "")
        value: Any = entry.get("value")
        if entry.get("type") in ("bool", "flag"):
            found += [flag] if value not in (False, None, "false", "False") else []
        elif isinstance(value, list):
            found.append(flag)
            found.extend(str(item) for item in value)
        else:
            found += [flag, str(value)]
    return tuple(found)


def _environment(text: Any) -> dict[str, str]:
    """`[{key, value}]` as variables."""
    entries: list[Mapping[str, Any]] = _json("engine_startup_env_json", text, list) or []
    return {str(entry.get("key")): str(entry.get("value", "")) for entry in entries}


def _defaults(row: Mapping[str, Any]) -> dict[str, Any]:
    stored = _json("request_defaults_json", row.get("request_defaults_json"), dict) or {}
    custom = _json("custom_request_json", row.get("custom_request_json"), dict) or {}
    sampling = {key: row[key] for key in SAMPLING if row.get(key) is not None}
    return {**stored, **sampling, **custom}


def _json(field: str, text: Any, kind: type) -> Any:
    """JSON that is stored as a text (or was read already), of this kind."""
    if text in (None, ""):
        return None
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise InvalidField(field, f"{field} is not valid JSON: {error}") from error
    entries = value if isinstance(value, list) else []
    if not isinstance(value, kind) or not all(isinstance(entry, Mapping) for entry in entries):
        raise InvalidField(field, f"{field} must be {'a list of objects' if kind is list else 'an object'}")
    return value
