"""Why a model does not start, in Cortex's words, by logs that real engines printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.api.dialects.cortex.diagnosis import diagnosis_out, summary_out
from ostler.engines.base import Engine
from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.vllm import Vllm

LOGS = Path(__file__).parents[3] / "engines" / "logs"
FIELDS = {"detected", "title", "message", "fixes", "severity", "error_type", "line"}


def lines_of(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text().splitlines()


@pytest.mark.parametrize(
    ("engine", "log", "title", "error_type"),
    [
        (LlamaCpp(), "llamacpp/shard_missing", "Part missing", "model"),
        (LlamaCpp(), "llamacpp/flag_unknown", "Unknown flag", "args"),
        (LlamaCpp(), "llamacpp/context_too_large", "Context too large", "memory"),
        (LlamaCpp(), "llamacpp/hub_unreachable", "No connection", "network"),
        (Vllm(), "vllm/flag_unknown", "Unknown flag", "args"),
        (Vllm(), "vllm/port_taken", "Port in use", "system"),
    ],
)
def test_a_real_failure_is_told_in_cortexs_shape(
    engine: Engine, log: str, title: str, error_type: str
) -> None:
    found = diagnosis_out(engine, lines_of(log), has_failed=True, exit_code=1)
    assert found is not None and found.keys() == FIELDS
    assert (found["detected"], found["title"], found["error_type"]) == (True, title, error_type)
    assert found["severity"] == "error" and found["fixes"] and all(found["fixes"])


def test_a_kill_for_want_of_memory_is_told_without_a_log() -> None:
    found = diagnosis_out(LlamaCpp(), [], has_failed=True, oom_killed=True)
    assert found is not None and (found["error_type"], found["detected"]) == ("memory", True)


def test_a_failure_without_a_known_cause_gets_general_advice() -> None:
    found = diagnosis_out(LlamaCpp(), ["something odd"], has_failed=True, exit_code=1)
    assert found is not None and found["detected"] is False and len(found["fixes"]) > 1


def test_a_healthy_log_with_the_word_error_in_it_has_no_diagnosis() -> None:
    for engine, name in ((LlamaCpp(), "starts/llamacpp"), (Vllm(), "starts/vllm")):
        lines = [*lines_of(name), "0 errors, 0 failed"]
        assert diagnosis_out(engine, lines, has_failed=False) is None


def test_a_warning_of_a_running_engine_is_told_as_one() -> None:
    found = diagnosis_out(LlamaCpp(), lines_of("llamacpp/tokenizer_unnamed"), has_failed=False)
    assert found is not None and (found["detected"], found["severity"]) == (True, "warning")


def test_a_start_is_summed_up() -> None:
    vllm = summary_out(Vllm(), lines_of("starts/vllm"))
    assert vllm is not None and vllm["vllm_version"] == "0.32.0"
    assert (vllm["kv_cache_size_tokens"], vllm["loading_time_sec"]) == (524_288, 0.01)
    llama = summary_out(LlamaCpp(), lines_of("starts/llamacpp"))
    assert llama is not None and llama["vllm_version"] is None
    assert llama["memory_usage_gib"] == 0.004 and llama["warnings"]
    assert summary_out(LlamaCpp(), lines_of("llamacpp/not_a_gguf")) is None
