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


CORTEX_KNEW = [
    ("LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified "
     "revision on the local disk and outgoing traffic has been disabled.", "model"),
    ("OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/x: offline mode is enabled.", "model"),
    ("ValueError: The checkpoint you are trying to load has model type `qwen3` but Transformers does not "
     "recognize this architecture.", "model"),
    ("ValueError: Free memory on device (9.1/23.6 GiB) on startup is less than desired GPU memory "
     "utilization (0.9, 21.2 GiB).", "memory"),
    ("api_server.py: error: unrecognized arguments: --temperature 0.7", "args"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "memory"),
    ("ModuleNotFoundError: No module named 'flash_attn'", "system"),
    ("urllib3.exceptions.NewConnectionError: Failed to establish a new connection: Connection refused",
     "network"),
    ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE)", "multi_gpu"),
    ("RuntimeError: NCCL error: ncclInternalError: Internal check failed.", "multi_gpu"),
    ("AssertionError: Error in memory profiling. Initial free memory 10.0 GiB, current free memory 12.0 GiB.",
     "memory"),
    ("huggingface_hub.errors.RepositoryNotFoundError: Repository Not Found for url", "model"),
    ("ValueError: World size (4) is larger than the number of available GPUs (2) in this node.", None),
    ("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your driver",
     "system"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", "system"),
    ("CUDA driver version is insufficient for CUDA runtime version", "system"),
]  # fmt: skip
"""What Cortex had a rule for, in the words of the engines; the rest are notes of a healthy start."""


@pytest.mark.parametrize(("line", "error_type"), CORTEX_KNEW)
def test_what_cortex_could_explain_is_explained(line: str, error_type: str | None) -> None:
    found = diagnosis_out(Vllm(), ["INFO starting", line], has_failed=True, exit_code=1)
    assert found is not None and found["detected"] and found["title"] != "vLLM gave up"
    assert error_type is None or found["error_type"] == error_type
    assert line.startswith(found["line"][:400])


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("WARNING With `vllm serve`, you should provide the model as a positional argument", "info"),
        ("ValueError: As of transformers v4.44, default chat template is no longer allowed", "warning"),
        ("INFO No available shared memory broadcast block found in 60 seconds.", "info"),
    ],
)
def test_what_cortex_warned_of_is_a_note(line: str, severity: str) -> None:
    found = diagnosis_out(Vllm(), [line], has_failed=False)
    assert found is not None and (found["detected"], found["severity"]) == (True, severity)
