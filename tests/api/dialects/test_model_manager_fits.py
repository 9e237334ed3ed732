"""Estimates in Model Manager's words, by the vectors of its own behaviour."""

from __future__ import annotations

from typing import Any

import pytest

from ostler.api.dialects.model_manager.fits import (
    Profile,
    Required,
    compatibility_view,
    recommendation_view,
    required_by_name,
    required_of,
)
from ostler.fit.estimated import Estimate, Need

MI210 = Profile.of(
    {
        "name": "amd-mi210-venus",
        "memoryGB": 96,
        "vendor": "amd",
        "features": ["bf16", "fp16", "hip", "pcie-gen4"],
        "labels": {"a": "b"},
    }
)
SMALL = Profile("T4", 16, "nvidia", ("fp16",))
PLAIN = Profile("L20", 48)


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("0.5B", 8),
        ("1.5B", 9),
        ("7B", 20),
        ("8B", 22),
        ("13b", 32),
        ("34b", 74),
        ("39b", 84),
        ("40B", 86),
        ("70B", 146),
        ("120b", 246),
        ("opt-125m", 8),
        ("Mixtral-8x7B", 20),
        ("a/b-4bit", 14),
        ("tiny-gpt2", 16),
        ("Phi-3-mini-4k", 16),
    ],
)
def test_the_requirement_by_name(name: str, gib: int) -> None:
    assert required_by_name(name).gib == gib


def test_the_requirement_by_name_says_from_what_it_is() -> None:
    assert required_by_name("Qwen2.5-7B-Instruct").reason == "derived from 7B"
    assert required_by_name("gpt 13 b").reason == "derived from 13 b"
    assert required_by_name("tiny-gpt2").reason == "default requirement"


def estimate(gib: float, **more: Any) -> Estimate:
    need = Need("cuda:0", "a GPU", int(gib * 2**30), 0, 0, 0, None)
    host = Need("cpu", "host", 0, 0, 0, 0, None)
    return Estimate(8192, 1, (need,), host, None, **more)


def test_a_real_estimate_takes_the_place_of_the_rule() -> None:
    assert required_of(estimate(4.2)) == Required(
        5, "counted from the files' headers, at a context of 8192 tokens"
    )
    assert required_of(estimate(0.01, exactness="measured")).reason.startswith("measured at an earlier load")
    report = compatibility_view("m", required_of(estimate(4.2)), [SMALL], "t4")
    assert (report["estimatedVramGb"], report["compatible"], report["gpuType"]) == (5, True, "T4")


def test_a_report_without_profiles_and_of_an_unknown_type() -> None:
    required = Required(20, "derived from 7B")
    assert compatibility_view("m", required, []) == {
        "modelId": "m",
        "estimatedVramGb": 20,
        "reason": "no gpu profiles configured",
        "compatible": False,
    }
    assert compatibility_view("m", required, [MI210], "h100") == {
        "modelId": "m",
        "gpuType": "h100",
        "estimatedVramGb": 20,
        "reason": "unknown gpu type",
        "compatible": False,
    }


def test_a_report_for_one_type() -> None:
    required = Required(20, "derived from 7B")
    assert compatibility_view("m", required, [SMALL, MI210], "AMD-MI210-Venus") == {
        "modelId": "m",
        "gpuType": "amd-mi210-venus",
        "estimatedVramGb": 20,
        "reason": "derived from 7B",
        "compatible": True,
        "suggestions": ["Enable tensor parallel for fastest throughput"],
    }
    assert compatibility_view("m", required, [SMALL], "T4") == {
        "modelId": "m",
        "gpuType": "T4",
        "estimatedVramGb": 20,
        "reason": "requires 20 GiB, only 16 GiB available",
        "compatible": False,
        "suggestions": ["Use quantization or swap space for >7B parameters"],
    }


def test_a_report_for_all_types_lists_candidates_by_name_and_says_nothing_itself() -> None:
    report = compatibility_view("m", Required(20, "derived from 7B"), [MI210, SMALL])
    assert report["candidates"] == [
        {"gpu": "T4", "compatible": False, "reason": "short by 4 GiB"},
        {"gpu": "amd-mi210-venus", "compatible": True},
    ]
    assert report["compatible"] is False and "gpuType" not in report


def test_a_recommendation_for_a_type() -> None:
    assert recommendation_view("AMD-MI210-VENUS", [MI210]) == {
        "gpuType": "amd-mi210-venus",
        "memoryGB": 96,
        "flags": ["--dtype", "bfloat16"],
        "notes": [
            "Enough VRAM for most 70B models without quantization",
            "Ensure HIP_VISIBLE_DEVICES / ROCm env vars are set",
            "Use --max-num-batched-tokens to stay within PCIe limits",
        ],
    }
    assert recommendation_view("t4", [SMALL]) == {
        "gpuType": "T4",
        "memoryGB": 16,
        "flags": ["--dtype", "float16", "--tensor-parallel-size", "2"],
        "notes": ["Plan for 4-bit/8-bit quantization on >7B models"],
    }
    assert recommendation_view("x", [SMALL]) == {"gpuType": "x", "flags": None, "notes": ["unknown gpu type"]}


@pytest.mark.parametrize(
    ("required", "note", "flags"),
    [
        (16, "~32 GiB headroom for m", []),
        (17, "fits m with modest headroom (~31 GiB)", []),
        (40, "fits m with modest headroom (~8 GiB)", []),
        (41, "VRAM margin for m is tight (~7 GiB)", []),
        (48, "VRAM margin for m is tight (~0 GiB)", []),
        (52, "requires quantization or swap space (4 GiB short)", ["--swap-space", "4"]),
    ],
)
def test_a_recommendation_for_a_model_says_how_well_it_goes_in(
    required: int, note: str, flags: list[str]
) -> None:
    shown = recommendation_view("L20", [PLAIN], "m", Required(required, ""))
    assert (shown["notes"], shown["flags"]) == ([note], flags)
