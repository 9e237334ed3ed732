"""The rules that look ahead, on files that need not be there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.vllm import Vllm
from ostler.fit.device import Device
from ostler.fit.pretend import pretended
from ostler.fit.reasons import Choice
from ostler.instances.looking_ahead import Scene, look_ahead
from ostler.library.facts import ModelFacts
from ostler.library.filesets import FileSet

GGUF = FileSet(
    id="0" * 16,
    root_id=None,
    layout=None,
    name="m",
    path=Path("/m.gguf"),
    files=(),
    size_bytes=0,
    format="gguf",
    mmproj=None,
    repo=None,
    revision=None,
    tag=None,
    complete=True,
    missing=(),
    facts=ModelFacts("gguf", architecture="llama", context_length=8192),
    error=None,
    modified_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def codes(files: FileSet = GGUF, /, **options: Any) -> set[str]:
    scene = Scene(LlamaCpp(), files, options, Choice(), (), cores=8)
    return {found.code for found in look_ahead(scene)}


def safetensors(quantization: str | None) -> FileSet:
    return replace(GGUF, format="safetensors", facts=ModelFacts("safetensors", quantization=quantization))


def test_an_ordinary_start_finds_nothing() -> None:
    assert codes(context_length=8192, threads=8) == set()


def test_files_that_the_engine_does_not_load_are_an_error() -> None:
    assert "wrong_format" in codes(safetensors(None))


@pytest.mark.parametrize(
    ("stored", "wanted", "differs"),
    [
        ("awq", "awq", False),
        ("awq", "awq_marlin", False),
        ("compressed-tensors", "compressed_tensors", False),
        ("awq", "gptq", True),
        ("gptq", "fp8", True),
        (None, "awq", True),
        ("BF16", "gptq_marlin", True),
        ("BF16", "fp8", False),
        (None, "bitsandbytes", False),
        ("awq", None, False),
    ],
)
def test_the_option_and_the_files_agree_on_the_quantization(
    stored: str | None, wanted: str | None, differs: bool
) -> None:
    assert ("quantization_differs" in codes(safetensors(stored), quantization=wanted)) is differs


@pytest.mark.parametrize(
    ("options", "is_wrong"),
    [
        ({"kv_cache_type_v": "q8_0", "flash_attention": "off"}, True),
        ({"kv_cache_type": "q4_0", "flash_attention": "off"}, True),
        ({"kv_cache_type_k": "q8_0", "flash_attention": "off"}, False),
        ({"kv_cache_type_v": "q8_0", "flash_attention": "auto"}, False),
        ({"kv_cache_type_v": "f16", "flash_attention": "off"}, False),
    ],
)
def test_a_quantized_cache_of_values_needs_flash_attention(options: dict[str, Any], is_wrong: bool) -> None:
    assert ("v_cache_needs_flash_attention" in codes(**options)) is is_wrong


def test_a_context_that_is_stretched_on_purpose_is_no_surprise() -> None:
    assert "context_beyond_training" in codes(context_length=8193)
    assert codes(context_length=32_768, rope_scaling="yarn") == set()
    assert "context_beyond_training" in codes(context_length=16_384, parallel_slots=2, kv_unified=True)
    assert codes(context_length=16_384, parallel_slots=2) == set()


def test_a_model_that_could_see_is_missed_its_projector() -> None:
    blind = replace(GGUF, facts=ModelFacts("gguf", architecture="qwen2vl", context_length=8192))
    assert codes(blind) == {"no_projector"}
    assert codes(replace(blind, mmproj=Path("/mmproj.gguf"))) == set()
    assert codes(blind, mmproj="/elsewhere.gguf") == set()


GPUS = tuple(pretended("2x24GiB"))


@pytest.mark.parametrize(
    ("options", "devices", "code"),
    [
        ({"tensor_parallel_size": 2}, GPUS, None),
        ({"tensor_parallel_size": 4}, GPUS, "more_gpus_than_there_are"),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, GPUS, "more_gpus_than_there_are"),
        ({"tensor_parallel_size": 2}, GPUS[:1], "more_gpus_than_there_are"),
        ({"tensor_parallel_size": 2}, (), None),
        ({"quantization": "fp8"}, GPUS, "fp8_needs_newer_gpus"),
        ({"swap_space_gb": 4.0}, GPUS, "not_passed_on"),
    ],
)
def test_what_is_said_of_vllm_and_its_gpus(
    options: dict[str, Any], devices: tuple[Device, ...], code: str | None
) -> None:
    found = look_ahead(Scene(Vllm(), safetensors(None), options, Choice(), devices, cores=8))
    assert [one.code for one in found] == ([code] if code else [])
    assert all(one.is_error == (one.code == "more_gpus_than_there_are") for one in found)


@pytest.mark.parametrize("name", ["threads", "threads_batch"])
def test_more_threads_than_cores(name: str) -> None:
    assert codes(**{name: 9}) == {"more_threads_than_cores"} and codes(**{name: 8}) == set()


@pytest.mark.parametrize(
    "flag", ["--temp", "--temperature", "--top_p", "--repeat-penalty=1.1", "--max-tokens", "--stop"]
)
def test_an_argument_that_requests_say_for_themselves_is_better_a_default_of_requests(flag: str) -> None:
    scene = Scene(LlamaCpp(), GGUF, {}, Choice(), (), cores=8, arguments=("--no-warmup", flag, "0.5"))
    (found,) = look_ahead(scene)
    assert (found.code, found.severity, found.category) == ("argument_of_requests", "warning", "args")
    assert flag.partition("=")[0] in found.message and "request defaults" in str(found.fix)


def test_who_traces_every_call_is_told_what_that_sets_and_costs() -> None:
    options = {"trace_functions": True, "cuda_launch_blocking": True}
    (found,) = look_ahead(Scene(Vllm(), safetensors(None), options, Choice(), (), cores=8))
    assert found.code == "traced" and "slow" in found.message
    assert "VLLM_TRACE_FUNCTION=1 and CUDA_LAUNCH_BLOCKING=1" in found.message
    assert not look_ahead(Scene(Vllm(), safetensors(None), {"trace_functions": False}, Choice(), (), cores=8))
