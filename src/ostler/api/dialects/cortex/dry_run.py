"""A dry run as Cortex answers it: `{command, command_str, valid, warnings, vram_estimate}`.

Its "GB" are 1024^3 bytes. A warning is {severity, category, title, message, fix}: severities are error,
warning and info, categories memory, args and config; `valid` means that there is no error.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ostler.api.dialects.cortex.words import gb
from ostler.fit.estimated import Estimate, Need

TIGHT_SHARE = 0.9
"""Above this share of what is free it is tight."""

_LESS = "Choose a shorter context, a smaller quantization or a smaller cache type, or stop another model."
_LESS_SHARE = "Lower gpu_memory_utilization (on a CPU: the option cpu_kv_cache_gib), or stop another model."


class Said(Protocol):
    """One thing that a dry run found."""

    @property
    def severity(self) -> str:
        """error, warning or info."""

    @property
    def category(self) -> str:
        """memory, args or config."""

    @property
    def title(self) -> str:
        """A few words."""

    @property
    def message(self) -> str:
        """One sentence with the facts."""

    @property
    def fix(self) -> str | None:
        """What to do."""


def dry_run_view(
    argv: Sequence[str],
    findings: Sequence[Said],
    estimate: Estimate | None,
    *,
    parameter_count: int | None = None,
    options: Mapping[str, Any] | None = None,
    gets_room: bool = False,
    fetches_first: bool = False,
) -> dict[str, Any]:
    """The whole answer. `argv` has its secrets hidden already; it is empty where nothing can be run, and
    where that is not known before the files are here (`fetches_first`).

    What does not fit is an error for each GPU, beside what was found otherwise; only a warning where the
    start will get its room all the same (`gets_room`): others leave, or it waits for them.
    """
    warnings = [
        {
            "severity": str(found.severity),
            "category": str(found.category),
            "title": found.title,
            "message": found.message,
            "fix": found.fix,
        }
        for found in findings
    ]
    vram = None
    if estimate is not None:
        short = memory_warnings(estimate)
        warnings = [*([{**one, "severity": "warning"} for one in short] if gets_room else short), *warnings]
        vram = vram_estimate_view(estimate, parameter_count=parameter_count, options=options)
    return {
        "command": list(argv),
        "command_str": shlex.join(argv),
        "valid": (bool(argv) or fetches_first)
        and not any(found["severity"] == "error" for found in warnings),
        "warnings": warnings,
        "vram_estimate": vram,
    }


def vram_estimate_view(
    estimate: Estimate, *, parameter_count: int | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The estimate for the fullest GPU, or for the host where no GPU holds any of it.

    `required_vram_gb` is what that GPU must have free: for vLLM the total over the share of the GPU that it
    is told to take. `overhead_gb` is what is neither weights nor cache.
    """
    options = options or {}
    gpus = [need for need in estimate.devices if need.total_bytes]
    fullest = max(gpus or [estimate.host], key=lambda need: need.total_bytes)
    share = float(options.get("gpu_memory_utilization") or 1.0) if gpus else 1.0
    return {
        "params_b": None if parameter_count is None else round(parameter_count / 1e9, 2),
        "model_weights_gb": gb(fullest.weights_bytes),
        "kv_cache_gb": gb(fullest.kv_cache_bytes),
        "overhead_gb": gb(fullest.compute_bytes + fullest.overhead_bytes),
        "total_per_gpu_gb": gb(fullest.total_bytes),
        "required_vram_gb": gb(fullest.total_bytes / share) if gpus else 0.0,
        "gpu_count": len(gpus),
        "host_memory_gb": gb(estimate.host.total_bytes),
        "context_size": estimate.context_length,
        "parallel_slots": estimate.parallel,
        "cache_type_k": options.get("kv_cache_type_k") or options.get("kv_cache_type") or "f16",
        "cache_type_v": options.get("kv_cache_type_v") or options.get("kv_cache_type") or "f16",
        "ngl": {**options, **estimate.options}.get("gpu_layers"),
        "note": f"{estimate.exactness}, for the fullest GPU"
        if gpus
        else f"{estimate.exactness}, on the host",
    }


def memory_warnings(estimate: Estimate) -> list[dict[str, Any]]:
    """An error for each GPU that has too little free, a warning for each where it is tight.

    vLLM takes a share of each GPU whatever the model is: with it nothing is tight, only too large.
    """
    takes_share = estimate.engine == "vllm"
    places = [(need, f"GPU {number}", "VRAM") for number, need in enumerate(estimate.devices)]
    places.append((estimate.host, "the host", "memory"))
    found = (_of_device(*place, takes_share=takes_share) for place in places)
    return [warning for warning in found if warning is not None]


def _of_device(need: Need, where: str, what: str, *, takes_share: bool) -> dict[str, Any] | None:
    most = 1.0 if takes_share else TIGHT_SHARE
    if need.free_bytes is None or need.total_bytes <= most * need.free_bytes:
        return None
    is_short = need.total_bytes > need.free_bytes
    title = f"{'Insufficient' if is_short else 'Tight'} {what} on {where}"
    message = f"It needs {gb(need.total_bytes)} GB on {need.name}, where {gb(need.free_bytes)} GB are free."
    fix = _LESS_SHARE if takes_share else _LESS
    severity = "error" if is_short else "warning"
    return {"severity": severity, "category": "memory", "title": title, "message": message, "fix": fix}
