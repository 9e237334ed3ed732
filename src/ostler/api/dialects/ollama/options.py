"""Ollama's `options`, one row each, and what they are called by the engines.

Described at https://docs.ollama.com/modelfile#valid-parameters-and-values. Those that belong to the start
of an engine are the model's own here (`context_length`, `gpu_layers`, ...): they are read and passed over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ostler.core.errors import InvalidField

LLAMACPP = "llamacpp"
_SMALL = 2**31
_LARGE = 2**63


@dataclass(frozen=True, slots=True)
class Row:
    """One option: its type, and its name in a request to llama.cpp and to vLLM.

    `neutral` are the values that change nothing, for an engine that has no such parameter; None: it is
    passed over there. `at_start` names our engine option where it belongs to the start of an engine.
    """

    kind: type
    llamacpp: str | None = None
    vllm: str | None = None
    neutral: tuple[float, ...] | None = None
    at_start: str | None = None
    limit: int = field(default=_SMALL)


def _same(kind: type, name: str, limit: int = _SMALL) -> tuple[str, Row]:
    return name, Row(kind, name, name, limit=limit)


OPTIONS: Mapping[str, Row] = dict(
    (
        _same(float, "temperature"),
        _same(int, "top_k"),
        _same(float, "top_p"),
        _same(float, "min_p"),
        _same(int, "seed", _LARGE),
        _same(float, "presence_penalty"),
        _same(float, "frequency_penalty"),
        _same(list, "stop"),
        ("num_predict", Row(int, "max_tokens", "max_tokens")),
        ("repeat_penalty", Row(float, "repeat_penalty", "repetition_penalty")),
        ("repeat_last_n", Row(int, "repeat_last_n")),
        ("typical_p", Row(float, "typical_p", neutral=(1.0,))),
        ("mirostat", Row(int, "mirostat", neutral=(0,))),
        ("mirostat_tau", Row(float, "mirostat_tau")),
        ("mirostat_eta", Row(float, "mirostat_eta")),
        ("num_keep", Row(int, "n_keep")),
        ("tfs_z", Row(float)),
        ("penalize_newline", Row(bool)),
        ("num_ctx", Row(int, at_start="context_length")),
        ("num_batch", Row(int, at_start="batch_size")),
        ("num_gpu", Row(int, at_start="gpu_layers")),
        ("num_thread", Row(int, at_start="threads")),
        ("main_gpu", Row(int)),
        ("numa", Row(bool)),
        ("low_vram", Row(bool)),
        ("f16_kv", Row(bool)),
        ("logits_all", Row(bool)),
        ("vocab_only", Row(bool)),
        ("use_mmap", Row(bool)),
        ("use_mlock", Row(bool)),
        ("embedding_only", Row(bool)),
    )
)


def check(given: Mapping[str, Any] | None, field: str = "options") -> dict[str, Any]:
    """The options that are known, each of its type; null counts as not sent. Raises InvalidField."""
    checked = {}
    for name, value in (given or {}).items():
        row = OPTIONS.get(name)
        if row is not None and value is not None:
            checked[name] = _checked(f"{field}.{name}", value, row)
    return checked


def sampling(options: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """The fields of a request to this engine. Raises InvalidField for what it cannot do."""
    is_llama = engine == LLAMACPP
    asked = {}
    for name, value in options.items():
        row = OPTIONS[name]
        theirs = row.llamacpp if is_llama else row.vllm
        if theirs is not None:
            asked[theirs] = value
        elif row.neutral is not None and value not in row.neutral:
            raise InvalidField(
                f"options.{name}",
                f"{engine} has no {name}",
                hint="Leave it out for this model.",
            )
    if asked.get("max_tokens", 1) <= 0:  # Ollama's -1 and -2: until it ends by itself
        del asked["max_tokens"]
        if is_llama:
            asked["max_tokens"] = -1
    return asked


def check_context(options: Mapping[str, Any], context_length: int | None, model: str) -> None:
    """Raise InvalidField where more context is wanted than the running engine has for one request."""
    wanted = options.get("num_ctx")
    if wanted is not None and context_length is not None and wanted > context_length:
        raise InvalidField(
            "options.num_ctx",
            f"{model} runs with a context of {context_length} tokens, and the request wants {wanted}",
            hint=f"Leave num_ctx out, or change the model: ostler set {model} context_length={wanted}",
            context_length=context_length,
        )


def at_start(options: Mapping[str, Any]) -> dict[str, Any]:
    """Our engine options for those that belong to the start of llama.cpp."""
    return {row.at_start: options[name] for name, row in OPTIONS.items() if row.at_start and name in options}


def _checked(field: str, value: Any, row: Row) -> Any:
    if row.kind is list:
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return texts
        raise InvalidField(field, f"{field} must be a list of texts")
    if row.kind is bool:
        if isinstance(value, bool):
            return value
        raise InvalidField(field, f"{field} must be true or false")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidField(field, f"{field} must be a number")
    if row.kind is int:
        if value != int(value):
            raise InvalidField(field, f"{field} must be a whole number")
        value = int(value)
    if abs(value) >= row.limit:
        raise InvalidField(field, f"{field} is out of range")
    return value
