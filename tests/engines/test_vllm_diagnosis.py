"""Why vLLM ended, by what a real one printed (tests/real/provoke_vllm.py) or by its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.engines.llamacpp_diagnosis import DIAGNOSIS as LLAMA_CPP
from ostler.engines.vllm_diagnosis import DIAGNOSIS

LOGS = Path(__file__).parent / "logs" / "vllm"

PRINTED = {
    "architecture_unknown": "Architecture not supported",
    "attention_backend_unknown": "Unknown attention code",
    "chat_template_missing": "Chat template missing",
    "choice_invalid": "Bad value",
    "config_broken": "Configuration broken",
    "config_missing": "Model not found",
    "context_too_long": "Context too long for the model",
    "draft_missing": "Model not found",
    "flag_unknown": "Unknown flag",
    "folder_missing": "Model not found",
    "heads_not_divisible": "Model cannot be split like that",
    "hub_absent": "Model not found",
    "hub_gated": "Access to the repo is restricted",
    "hub_offline": "Files missing, and engines are offline",
    "hub_unreachable": "No connection",
    "kv_cache_none": "No memory left for the KV cache",
    "kv_cache_over_memory": "Host has less free memory than asked for",
    "library_missing": "Library missing",
    "lora_missing": "Adapter not usable",
    "model_type_unknown": "Model too new for this vLLM",
    "module_missing": "Python package missing",
    "needs_remote_code": "Model needs code of its own",
    "permission_denied": "Not permitted",
    "port_taken": "Port in use",
    "quantization_mismatch": "Model is not quantized like that",
    "quantization_unknown": "Quantization not supported",
    "reasoning_parser_unknown": "Unknown parser",
    "shard_missing": "Weights missing",
    "tokenizer_missing": "Tokenizer missing",
    "tokenizer_offline": "Files missing, and engines are offline",
    "too_many_parallel": "More parts than GPUs",
    "tool_parser_missing": "Parser missing",
    "tool_parser_unknown": "Unknown parser",
    "value_invalid": "Bad value",
    "weights_broken": "Weights broken",
    "weights_cut": "Weights broken",
    "weights_missing": "Weights missing",
    "weights_other_shape": "Weights do not fit the configuration",
}
"""What the real vLLM 0.32.0 printed for each fault, and what it means."""


@pytest.mark.parametrize(("name", "title"), PRINTED.items())
def test_a_real_end_is_explained(name: str, title: str) -> None:
    found = DIAGNOSIS.diagnose((LOGS / f"{name}.log").read_text().splitlines(), 1)
    assert found is not None and found.title == title
    assert found.hint and found.line


def test_every_captured_log_has_its_meaning() -> None:
    assert {log.stem for log in LOGS.glob("*.log")} == PRINTED.keys()


SAID_BY_SOURCES = [
    (
        "ValueError: Free memory on device cuda:0 (10.2/23.6 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 21.7 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
        "processes.",
        "GPU has less free memory than asked for",
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has",
        "Out of GPU memory",
    ),
    (
        "AssertionError: Error in memory profiling. Initial free memory 10.0 GiB, current free memory "
        "12.0 GiB. This",
        "GPU memory changed while it was measured",
    ),
    (
        "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV "
        "cache is needed, "
        "which is larger than the available KV cache memory (5.0 GiB). Based on the available memory, the "
        "estimated "
        "maximum model length is 40960. Try increasing",
        "Context too large for the memory",
    ),
    (
        "[rank0]:[E1125 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation timeout: "
        "WorkNCCL(",
        "GPUs did not answer each other in time",
    ),
    (
        "RuntimeError: NCCL error: ncclSystemError: System call (e.g. socket, malloc)",
        "GPUs cannot talk to each other",
    ),
    (
        "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
        "More parts than GPUs",
    ),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update",
        "GPU driver too old",
    ),
    (
        "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version",
        "GPU driver too old",
    ),
    (
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your "
        "driver",
        "GPU driver too old",
    ),
    ("nvidia-container-cli: initialization error: nvml error: driver not loaded", "No GPU for containers"),
    ("RuntimeError: No CUDA GPUs are available", "No GPU found"),
    (
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your "
        "Tesla T4",
        "GPU has no bfloat16",
    ),
    ("OSError: [Errno 28] No space left on device: '/psm_1a2b'", "Disk full"),
    (
        "(EngineCore pid=7) ERROR 11-25 14:22:07 [multiproc_executor.py:315] Worker proc VllmWorker-0 "
        "died unexpectedly "
        "(exit code: -9), shutting down executor.",
        "Part of the engine was killed",
    ),
    (
        "(EngineCore pid=7) ERROR 11-25 14:46:43 [multiproc_executor.py:315] Worker proc VllmWorker-0 died "
        "unexpectedly (exit code: -4), shutting down executor.",
        "Processor cannot compute that",
    ),
]
"""What needs a GPU, a full disk or a killer: the words of vLLM's, PyTorch's and NVIDIA's sources."""


@pytest.mark.parametrize(("line", "title"), SAID_BY_SOURCES)
def test_an_end_that_needs_a_gpu_is_explained(line: str, title: str) -> None:
    found = DIAGNOSIS.diagnose(["INFO loading", line, "RuntimeError: Engine core initialization failed."], 1)
    assert found is not None and found.title == title


def test_the_numbers_of_the_line_are_told() -> None:
    found = DIAGNOSIS.diagnose([SAID_BY_SOURCES[0][0]], 1)
    assert found is not None and "21.7 GiB" in found.reason and "10.2 of 23.6 GiB" in found.reason


@pytest.mark.parametrize("known", [DIAGNOSIS, LLAMA_CPP])
@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("OSError: [Errno 28] No space left on device", "Disk full"),
        ("PermissionError: [Errno 13] Permission denied: '/models/a'", "Not permitted"),
        (
            "x: error while loading shared libraries: libnope.so.1: cannot open shared object file",
            "Library missing",
        ),
        ("OSError: [Errno 98] Address already in use", "Port in use"),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", "Access to the repo is restricted"),
        ("CUDA error: no kernel image is available for execution on the device", "GPU not supported"),
    ],
)
def test_what_is_wrong_with_the_machine_is_told_of_every_engine(known: object, line: str, title: str) -> None:
    found = known.diagnose([line], 1)  # type: ignore[attr-defined]
    assert found is not None and found.title == title


def test_warnings_of_a_healthy_start_explain_nothing() -> None:
    lines = [
        "(APIServer pid=1) WARNING 11-25 14:20:49 [system_utils.py:255] This can cause fd limit errors like "
        "`OSError: [Errno 24] Too many open files`.",
        "(APIServer pid=1) INFO 11-25 14:20:49 [launcher.py:1] Permission denied would be an error",
    ]
    assert DIAGNOSIS.diagnose(lines, 0) is None


def test_what_a_running_engine_warns_of_is_a_note_and_no_end() -> None:
    line = "INFO 11-25 [shm_broadcast.py:1] No available shared memory broadcast block found in 60 seconds."
    assert DIAGNOSIS.diagnose([line], 0) is None
    assert [note.title for note in DIAGNOSIS.notes_on([line])] == ["A step takes long"]


def test_a_kill_is_told_with_what_to_do() -> None:
    killed = DIAGNOSIS.diagnose([], None, oom_killed=True)
    assert killed is not None and killed.title == "Killed: out of memory" and killed.cause == "memory"


def test_each_rule_has_a_next_step_and_can_be_filled_in() -> None:
    for rule in DIAGNOSIS.rules:
        blanks = dict.fromkeys(rule.pattern.groupindex, "x")
        assert rule.reason.format(**blanks) and rule.hint.format(**blanks) and rule.title


def test_a_context_that_is_too_large_is_told_with_the_largest_that_fits_where_vllm_says_it() -> None:
    need = "(16.0 GiB KV cache is needed, which is larger than the available KV cache memory (5.0 GiB)."
    with_estimate = DIAGNOSIS.diagnose([f"{need} the estimated maximum model length is 40960."], 1)
    without = DIAGNOSIS.diagnose([need], 1)
    assert with_estimate is not None and "40960 or less" in with_estimate.hint
    assert without is not None and "to less," in without.hint
