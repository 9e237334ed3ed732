"""Why a model does not start, and what its log says of a start, in Cortex's words. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ostler.api.dialects.cortex.words import GIB
from ostler.engines.base import Cause, Diagnosis, Engine

DIAGNOSED_LINES = 400
"""As many of the last lines are looked at: vLLM prints a traceback per process after the line that tells."""

_TYPES: Mapping[Cause, str] = {"arguments": "args", "gpus": "multi_gpu"}
"""Cortex's `error_type` where it has another word than our cause."""

_ADVICE = (
    "Read the last lines of the log above: the first error counts, not the last",
    "Check what would be started: POST /admin/models/{id}/dry-run",
    "Compare with the page of known causes: docs/troubleshooting.md",
)


def diagnosis_out(
    engine: Engine,
    log: Sequence[str],
    *,
    has_failed: bool,
    exit_code: int | None = None,
    oom_killed: bool = False,
) -> dict[str, Any] | None:
    """What is wrong: `{detected, title, message, fixes, severity, error_type}`.

    A model that has failed is always answered, without a known cause by general advice. Of one that has
    not, only a known warning is told, else None: an "error" in the log of a healthy engine is none.
    """
    lines = log[-DIAGNOSED_LINES:]
    if not has_failed:
        notes = engine.notes(lines)
        return _out(notes[0]) if notes else None
    found = engine.diagnose(lines, exit_code, oom_killed=oom_killed)
    if found is not None:
        return _out(found)
    return {
        "detected": False,
        "title": "Cause not known",
        "message": "The engine ended, and its log says nothing that Ostler knows.",
        "fixes": list(_ADVICE),
        "severity": "error",
        "error_type": "unknown",
    }


def _out(found: Diagnosis) -> dict[str, Any]:
    return {
        "detected": True,
        "title": found.title,
        "message": found.reason,
        "fixes": list(found.fixes),
        "severity": found.severity,
        "error_type": _TYPES.get(found.cause, found.cause),
        "line": found.line,
    }


def summary_out(engine: Engine, log: Sequence[str]) -> dict[str, Any] | None:
    """What the log tells of a start, of either engine; None before the model is loaded."""
    found = engine.start_summary(log)
    if found is None:
        return None
    return {
        "vllm_version": found.version if engine.name == "vllm" else None,
        "engine_version": found.version,
        "model_path": found.model_path,
        "loading_time_sec": found.load_s,
        "memory_usage_gib": round(found.weights_bytes / GIB, 3) if found.weights_bytes is not None else None,
        "kv_cache_size_tokens": found.cache_tokens,
        "warnings": list(found.warnings),
    }
