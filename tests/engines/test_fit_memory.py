"""What the built-in engine says that it will allocate is what it allocates; nonsense is not believed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ostler.engines.base import LaunchRequest
from ostler.engines.fit_memory import PARTS, read_answer
from ostler.engines.llama_server.fit_memory import read_breakdown
from ostler.engines.llamacpp import BUILT_IN, LlamaCpp
from ostler.engines.llamacpp_options import TABLE
from tests.fit.small_models import Sizes, write_model

MIB = 1 << 20
ROUNDED = 0.02
"""MiB: the log has two decimals, and two buffers may be added."""
BUFFERS = {
    "weights_bytes": re.compile(r"model buffer size = +([\d.]+) MiB"),
    "kv_cache_bytes": re.compile(r"(?:KV|RS) buffer size = +([\d.]+) MiB"),
    "compute_bytes": re.compile(r"(?:compute|output) buffer size = +([\d.]+) MiB"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "llama": {"context_length": 4096, "parallel_slots": 2, "flash_attention": "on"},
    "gemma3": {"context_length": 8192, "ubatch_size": 128, "flash_attention": "off"},
    "qwen3moe": {"context_length": 2048, "kv_cache_type_k": "q8_0", "flash_attention": "on"},
    "mamba": {"context_length": 1024, "parallel_slots": 4},
}


def allocated(model: Path, options: Mapping[str, Any]) -> dict[str, float]:
    """MiB of each kind of buffer by the log of a real load."""
    words = TABLE.to_args(TABLE.validate({**options, "verbosity": 4, "warmup": False, "fit": "off"}))
    command = [*BUILT_IN, "--model", str(model), "--port", "0", *words]
    sums = dict.fromkeys(PARTS, 0.0)
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as engine:
        assert engine.stderr is not None
        for line in engine.stderr:
            lines.append(line)
            for part, pattern in BUFFERS.items():
                if found := pattern.search(line):
                    sums[part] += float(found[1])
            if "sched_reserve: reserve took" in line:
                engine.kill()
                return sums
    raise AssertionError("".join(lines[-8:]))


@pytest.mark.parametrize("architecture", sorted(OPTIONS))
async def test_the_engine_allocates_what_it_says_before_it_loads(tmp_path: Path, architecture: str) -> None:
    model = write_model(
        tmp_path, architecture, Sizes(layers=7, n_embd=512, heads=8, kv_heads=4, head=64, vocab=8000)
    )
    options = OPTIONS[architecture]
    said = await LlamaCpp().memory(LaunchRequest(1, "m", model, options=options))
    assert said is not None and said.unchanged and list(said.devices) == ["Host"]
    for part, mib in allocated(model, options).items():
        told = said.devices["Host"][part] / MIB
        assert 0 < told <= mib + ROUNDED < told + 1 + 2 * ROUNDED, part


async def test_it_is_asked_once_until_the_model_or_its_options_change(demo_model: Path) -> None:
    engine = LlamaCpp()
    request = LaunchRequest(1, "m", demo_model, options={"context_length": 512})
    assert await engine.memory(request, ask=False) is None
    said = await engine.memory(request)
    assert said is not None and await engine.memory(request, ask=False) is said
    other = LaunchRequest(1, "m", demo_model, options={"context_length": 1024})
    assert await engine.memory(other, ask=False) is None


async def test_options_that_have_nothing_to_do_with_memory_are_not_carried_out(
    tmp_path: Path, demo_model: Path
) -> None:
    log = tmp_path / "engine.log"
    options = {"context_length": 512, "log_file": str(log), "temperature": 0.1}
    assert await LlamaCpp().memory(LaunchRequest(1, "m", demo_model, options=options)) is not None
    assert not log.exists()


async def test_a_model_that_cannot_be_read_and_another_program_say_nothing(
    tmp_path: Path, demo_model: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(demo_model.read_bytes()[:2000])
    assert await LlamaCpp().memory(LaunchRequest(1, "m", broken)) is None
    other = LlamaCpp(sys.executable)
    assert await other.memory(LaunchRequest(1, "m", demo_model)) is None
    projector = LaunchRequest(1, "m", demo_model, mmproj_path=demo_model)
    assert await LlamaCpp().memory(projector) is None


def table(*rows: str) -> str:
    head = "common_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model |\n"
    return head + "".join(f"common_memory_breakdown_print: |   - {row} |\n" for row in rows)


GPU = "CUDA0 (RTX 4090)   | 24077 =  945 + (19187 = 17904 +     384 +     898) +        3945"
HOST = "Host               |                 58271 = 58259 +       0 +      12               "
REPACKED = "CPU_REPACK         |                    10 =    10 +       0 +       0               "


def test_each_device_has_its_row_and_what_is_of_none_is_the_hosts() -> None:
    told = read_breakdown(table(GPU, HOST, REPACKED) + "will leave 9 >= 1 MiB, no changes needed\n")
    assert told is not None and told["unchanged"]
    answer = read_answer(json.dumps(told))
    assert answer is not None
    assert [n // MIB for n in answer.devices["CUDA0"].values()] == [17904, 384, 898]
    assert [n // MIB for n in answer.devices["Host"].values()] == [58269, 0, 12]


def test_where_the_engine_would_change_something_the_answer_is_of_what_was_asked() -> None:
    smaller = HOST.replace("58259", "   59")
    told = read_breakdown(table(HOST) + "need to reduce device memory\n" + table(smaller))
    assert told is not None and not told["unchanged"]
    assert told["devices"][0]["weights_bytes"] == 58259 * MIB
    assert read_breakdown("error: no such model\n") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"devices": [], "unchanged": true, "step_bytes": 1}',
        '{"devices": [{"name": "Host", "weights_bytes": -1, "kv_cache_bytes": 0, "compute_bytes": 0}],'
        ' "unchanged": true, "step_bytes": 1}',
        '{"devices": [{"name": "Host", "weights_bytes": 1e99, "kv_cache_bytes": 0, "compute_bytes": 0}],'
        ' "unchanged": true, "step_bytes": 1}',
    ],
)
def test_nonsense_is_not_an_answer(text: str) -> None:
    assert read_answer(text) is None
