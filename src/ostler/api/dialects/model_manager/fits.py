"""Estimates as Model Manager shows them: what a model requires, on which GPU profile it fits, what to set.

A profile is an entry of its `gpu-profiles.json`: {name, description?, memoryGB, vendor?, deviceId?,
features?, labels?}. Its "GB" are 1024^3 bytes. Fields that are empty are left out, as there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ostler.fit.estimated import Estimate

GIB = 1024**3
LEAST_GIB, UNKNOWN_GIB = 8, 16
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bm])", re.IGNORECASE | re.ASCII)
_BF16_FROM_GB, _LARGE_GB, _SMALL_GB = 32, 80, 32
_SMALL_GPU_GB, _FAST_GPU_GB = 16, 40
_AMPLE_GIB, _MODEST_GIB = 32, 8


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of GPU. `memory_gb` in units of 1024^3 bytes."""

    name: str
    memory_gb: int
    vendor: str = ""
    features: tuple[str, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Profile:
        """From an entry of the file of profiles; its name and memory are there and of the right kind."""
        taken = ("name", "memoryGB", "vendor", "features")
        rest = {key: value for key, value in entry.items() if key not in taken}
        features = tuple(entry.get("features") or ())
        return cls(entry["name"], entry["memoryGB"], entry.get("vendor") or "", features, rest)


@dataclass(frozen=True, slots=True)
class Required:
    """What a model requires of one GPU in GiB, and where that number is from."""

    gib: int
    reason: str


def required_by_name(name: str) -> Required:
    """Model Manager's own rule, for a model of which only the name is known: two bytes for a parameter.

    The first number before a b or an m counts, whatever it means in that name.
    """
    found = _SIZE.search(name)
    if found is None:
        return Required(UNKNOWN_GIB, "default requirement")
    number, is_billions = float(found[1]), found[2].lower() == "b"
    gib = math.ceil(max(LEAST_GIB, number * (2 if is_billions else 0.002) + 6))
    return Required(gib, f"derived from {found[0]}")


def required_of(estimate: Estimate) -> Required:
    """From a real estimate: all that the model needs, as if one GPU had to hold it."""
    gib = max(1, math.ceil(estimate.total("total_bytes") / GIB))
    how = (
        "measured at an earlier load"
        if estimate.exactness == "measured"
        else "counted from the files' headers"
    )
    return Required(gib, f"{how}, at a context of {estimate.context_length} tokens")


def compatibility_view(
    model_id: str, required: Required, profiles: Sequence[Profile], gpu_type: str | None = None
) -> dict[str, Any]:
    """The compatibility report, for one type of GPU or with all of them as candidates.

    `compatible` speaks of the type that was asked for: without one it is false, whatever the candidates say.
    """
    report: dict[str, Any] = {"modelId": model_id}
    if gpu_type:
        report["gpuType"] = gpu_type
    report |= {"estimatedVramGb": required.gib, "reason": required.reason, "compatible": False}
    if not profiles:
        return {**report, "reason": "no gpu profiles configured"}
    if not gpu_type:
        ordered = sorted(profiles, key=lambda profile: profile.name)
        return {**report, "candidates": [_candidate(profile, required) for profile in ordered]}
    profile = find_profile(profiles, gpu_type)
    if profile is None:
        return {**report, "reason": "unknown gpu type"}
    report |= {"gpuType": profile.name, "compatible": profile.memory_gb >= required.gib}
    if not report["compatible"]:
        report["reason"] = f"requires {required.gib} GiB, only {profile.memory_gb} GiB available"
    suggestions = []
    if profile.memory_gb <= _SMALL_GPU_GB:
        suggestions.append("Use quantization or swap space for >7B parameters")
    if profile.memory_gb >= _FAST_GPU_GB:
        suggestions.append("Enable tensor parallel for fastest throughput")
    return {**report, "suggestions": suggestions} if suggestions else report


def recommendation_view(
    gpu_type: str, profiles: Sequence[Profile], model_id: str | None = None, required: Required | None = None
) -> dict[str, Any]:
    """vLLM flags and notes for a type of GPU; with a model also how well it goes in."""
    profile = find_profile(profiles, gpu_type)
    if profile is None:
        return {"gpuType": gpu_type, "flags": None, "notes": ["unknown gpu type"]}
    flags: list[str] = []
    notes: list[str] = []
    features = {feature.lower() for feature in profile.features}
    if "bf16" in features and profile.memory_gb >= _BF16_FROM_GB:
        flags += ["--dtype", "bfloat16"]
    elif "fp16" in features:
        flags += ["--dtype", "float16"]
    if profile.memory_gb >= _LARGE_GB:
        notes.append("Enough VRAM for most 70B models without quantization")
    if profile.memory_gb <= _SMALL_GB:
        notes.append("Plan for 4-bit/8-bit quantization on >7B models")
        flags += ["--tensor-parallel-size", "2"]
    if model_id is not None and required is not None:
        note, more = _margin(profile.memory_gb - required.gib, model_id)
        notes.append(note)
        flags += more
    if "amd" in profile.vendor.lower():
        notes.append("Ensure HIP_VISIBLE_DEVICES / ROCm env vars are set")
    if "pcie-gen4" in features:
        notes.append("Use --max-num-batched-tokens to stay within PCIe limits")
    shown: dict[str, Any] = {"gpuType": profile.name}
    if profile.memory_gb:
        shown["memoryGB"] = profile.memory_gb
    return {**shown, "flags": flags, "notes": notes}


def find_profile(profiles: Sequence[Profile], gpu_type: str) -> Profile | None:
    """The profile of that name, whatever its case; the last one where a name is there twice."""
    wanted = gpu_type.lower()
    return next((profile for profile in reversed(profiles) if profile.name.lower() == wanted), None)


def _candidate(profile: Profile, required: Required) -> dict[str, Any]:
    short = required.gib - profile.memory_gb
    shown: dict[str, Any] = {"gpu": profile.name, "compatible": short <= 0}
    return shown if short <= 0 else {**shown, "reason": f"short by {short} GiB"}


def _margin(gib: int, model_id: str) -> tuple[str, list[str]]:
    if gib >= _AMPLE_GIB:
        return f"~{gib} GiB headroom for {model_id}", []
    if gib >= _MODEST_GIB:
        return f"fits {model_id} with modest headroom (~{gib} GiB)", []
    if gib >= 0:
        return f"VRAM margin for {model_id} is tight (~{gib} GiB)", []
    return f"requires quantization or swap space ({-gib} GiB short)", ["--swap-space", "4"]
