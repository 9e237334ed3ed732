"""Estimates and dry runs in Cortex's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ostler.api.dialects.cortex.dry_run import dry_run_view, vram_estimate_view
from ostler.fit.estimated import Estimate, Need

GIB = 2**30


def need(id: str, weights: float, cache: float, rest: float, free: float | None) -> Need:
    free_bytes = None if free is None else int(free * GIB)
    return Need(id, f"name of {id}", int(weights * GIB), int(cache * GIB), int(rest * GIB), 0, free_bytes)


def estimate(*devices: Need, host: Need | None = None, **more: Any) -> Estimate:
    return Estimate(8192, 2, devices, host or need("cpu", 0.5, 0, 0, 64), 32768, **more)


@dataclass
class Found:
    severity: str
    category: str = "args"
    title: str = "Unknown flag"
    message: str = "it does not know --foo"
    fix: str | None = "Did you mean --fog?"


def test_the_estimate_is_that_of_the_fullest_gpu() -> None:
    told = estimate(
        need("cuda:0", 4, 1, 0.5, 24), need("cuda:1", 5, 1.5, 0.5, 24), options={"gpu_layers": 33}
    )
    shown = vram_estimate_view(told, parameter_count=7_240_000_000, options={"kv_cache_type_k": "q8_0"})
    assert {name: shown[name] for name in list(shown)[:7]} == {
        "params_b": 7.24,
        "model_weights_gb": 5.0,
        "kv_cache_gb": 1.5,
        "overhead_gb": 0.5,
        "total_per_gpu_gb": 7.0,
        "required_vram_gb": 7.0,
        "gpu_count": 2,
    }
    assert (shown["context_size"], shown["parallel_slots"], shown["ngl"]) == (8192, 2, 33)
    assert (shown["cache_type_k"], shown["cache_type_v"]) == ("q8_0", "f16")


def test_vllm_must_have_more_than_it_needs_where_it_takes_a_share() -> None:
    shown = vram_estimate_view(
        estimate(need("cuda:0", 8, 1, 0, 24), engine="vllm"), options={"gpu_memory_utilization": 0.9}
    )
    assert (shown["total_per_gpu_gb"], shown["required_vram_gb"]) == (9.0, 10.0)


def test_without_a_gpu_the_numbers_are_the_hosts() -> None:
    shown = vram_estimate_view(estimate(host=need("cpu", 4, 1, 0.25, 64)))
    assert (shown["gpu_count"], shown["required_vram_gb"]) == (0, 0.0)
    assert (shown["model_weights_gb"], shown["host_memory_gb"]) == (4.0, 5.25)


def test_a_run_that_fits_is_valid_and_shows_its_command() -> None:
    shown = dry_run_view(
        ["llama-server", "--alias", "my model"], [Found("warning")], estimate(need("cuda:0", 4, 1, 0, 24))
    )
    assert list(shown) == ["command", "command_str", "valid", "warnings", "vram_estimate"]
    assert shown["command_str"] == "llama-server --alias 'my model'" and shown["valid"] is True
    assert shown["warnings"] == [
        {
            "severity": "warning",
            "category": "args",
            "title": "Unknown flag",
            "message": "it does not know --foo",
            "fix": "Did you mean --fog?",
        }
    ]


def test_too_little_memory_is_an_error_for_its_gpu_and_nearly_too_little_a_warning() -> None:
    told = estimate(need("cuda:0", 22, 0, 0, 24), need("cuda:1", 25, 0, 0, 24))
    shown = dry_run_view(["x"], [], told)
    assert [(w["severity"], w["category"], w["title"]) for w in shown["warnings"]] == [
        ("warning", "memory", "Tight VRAM on GPU 0"),
        ("error", "memory", "Insufficient VRAM on GPU 1"),
    ]
    assert "needs 25.0 GB" in shown["warnings"][1]["message"] and shown["valid"] is False


def test_vllm_takes_its_share_and_is_never_tight() -> None:
    told = estimate(need("cuda:0", 22, 0, 0, 24), need("cuda:1", 25, 0, 0, 24), engine="vllm")
    (short,) = dry_run_view(["x"], [], told)["warnings"]
    assert short["title"] == "Insufficient VRAM on GPU 1" and "gpu_memory_utilization" in short["fix"]


def test_what_cannot_be_run_is_never_valid() -> None:
    assert dry_run_view([], [], None) == {
        "command": [],
        "command_str": "",
        "valid": False,
        "warnings": [],
        "vram_estimate": None,
    }
    assert dry_run_view(["x"], [Found("error")], None)["valid"] is False
