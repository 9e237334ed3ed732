"""What an engine's log tells of a start that came to its end.

Seen in the logs of vLLM 0.32.0 and llama-server b11434; older wordings of vLLM are known beside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

WARNINGS_KEPT = 5
_LONGEST_LINE = 500


@dataclass(frozen=True, slots=True)
class StartSummary:
    """`load_s` is how long the weights took, `weights_bytes` what they take on all devices.

    `cache_tokens` is the room for all requests together. None where the log does not say; `warnings` are
    the last ones.
    """

    version: str | None = None
    model_path: str | None = None
    load_s: float | None = None
    weights_bytes: int | None = None
    cache_tokens: int | None = None
    warnings: tuple[str, ...] = ()


_VLLM_LOADED = re.compile(
    r"Model loading took (?P<gib>\d+(?:\.\d+)?) ?GiB(?: memory)? and (?P<s>\d+(?:\.\d+)?) s"
)
_VLLM_WEIGHTS = re.compile(r"Loading weights took (?P<s>\d+(?:\.\d+)?) s")
"""All that vLLM says on a CPU."""
_VLLM_VERSION = re.compile(r"LLM engine \(v(?P<a>[^)\s]+)\)|vLLM (?:API )?server version (?P<b>[^\s,]+)")
_VLLM_MODEL = re.compile(r"\bmodel='(?P<a>[^']+)'|serving model (?P<b>\S+)")
_VLLM_CACHE = re.compile(r"KV cache size: (?P<tokens>[\d,]+) tokens")
_VLLM_WARNING = re.compile(r"\bWARNING \d\d-\d\d ")


def summarize_vllm(log: Sequence[str]) -> StartSummary | None:
    """The start of a vLLM; None while its log does not say that the weights are loaded."""
    whole = _last(_VLLM_LOADED, log)
    loaded = whole or _last(_VLLM_WEIGHTS, log)
    if loaded is None:
        return None
    cache = _last(_VLLM_CACHE, log)
    return StartSummary(
        version=_either(_last(_VLLM_VERSION, log)),
        model_path=_either(_last(_VLLM_MODEL, log)),
        load_s=float(loaded["s"]),
        weights_bytes=round(float(whole["gib"]) * 1024**3) if whole else None,
        cache_tokens=int(cache["tokens"].replace(",", "")) if cache else None,
        warnings=_warnings(_VLLM_WARNING, log),
    )


_LLAMA_TIME = r"^(?P<min>\d+)\.(?P<s>\d\d)\.(?P<ms>\d{3})\.(?P<us>\d{3}) "
"""How llama-server begins a line: the time since its start."""
_LLAMA_BEGUN = re.compile(_LLAMA_TIME + r".*loading model '(?P<path>[^']+)'")
_LLAMA_LOADED = re.compile(_LLAMA_TIME + r".*\bmodel loaded\b")
_LLAMA_WEIGHTS = re.compile(r"load_tensors:.*model buffer size =\s*(?P<mib>\d+(?:\.\d+)?) MiB")
_LLAMA_SLOTS = re.compile(
    r"n_slots = (?P<slots>\d+), n_ctx_slot = (?P<tokens>\d+), kv_unified = '(?P<one>\w+)'"
)
_LLAMA_BUILD = re.compile(r"\bbuild (?P<a>[1-9]\d*) \(|\bbuild: (?P<b>[1-9]\d*) \(")
_LLAMA_WARNING = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} W |^warning: ")


def summarize_llama_cpp(log: Sequence[str]) -> StartSummary | None:
    """The start of a llama-server; None while its log does not say that the model is loaded."""
    loaded, begun = _last(_LLAMA_LOADED, log), _last(_LLAMA_BEGUN, log)
    if loaded is None:
        return None
    mib = [float(found["mib"]) for line in log if (found := _LLAMA_WEIGHTS.search(line))]
    slots = _last(_LLAMA_SLOTS, log)
    build = _either(_last(_LLAMA_BUILD, log))
    return StartSummary(
        version=f"b{build}" if build else None,
        model_path=begun["path"] if begun else None,
        load_s=round(_seconds(loaded) - _seconds(begun), 3) if begun else None,
        weights_bytes=round(sum(mib) * 1024**2) if mib else None,
        cache_tokens=_tokens(slots) if slots else None,
        warnings=_warnings(_LLAMA_WARNING, log),
    )


def _tokens(slots: re.Match[str]) -> int:
    """One cache for all slots, or one for each."""
    shared = 1 if slots["one"] == "true" else int(slots["slots"])
    return shared * int(slots["tokens"])


def _seconds(found: re.Match[str]) -> float:
    return int(found["min"]) * 60 + int(found["s"]) + int(found["ms"]) / 1e3 + int(found["us"]) / 1e6


def _last(pattern: re.Pattern[str], log: Sequence[str]) -> re.Match[str] | None:
    return next((found for line in reversed(log) if (found := pattern.search(line))), None)


def _either(found: re.Match[str] | None) -> str | None:
    return (found["a"] or found["b"]) if found else None


def _warnings(pattern: re.Pattern[str], log: Sequence[str]) -> tuple[str, ...]:
    return tuple(line.strip()[:_LONGEST_LINE] for line in log if pattern.search(line))[-WARNINGS_KEPT:]
