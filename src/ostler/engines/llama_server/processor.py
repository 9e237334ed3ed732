"""Threads and cores: the same five options for four sets of processor parameters."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ostler.engines.llama_server.arguments import BadArgument

Apply = Callable[[Any, Any, Any], None]
"""Carries out one option: (params, value, the module xllamacpp)."""


def _on_cpu(part: str, apply: Callable[[Any, Any, Any], None]) -> Apply:
    """The same act on one of the four sets of processor parameters ("cpuparams_batch")."""

    def act(params: Any, value: Any, x: Any) -> None:
        target = params
        for name in part.split("."):
            target = getattr(target, name)
        apply(target, value, x)

    return act


def _threads(cpu: Any, value: int, _: Any) -> None:
    cpu.n_threads = value if value > 0 else os.cpu_count() or 1


def _mask(cpu: Any, value: str, _: Any) -> None:
    try:
        bits = int(value, 16)
    except ValueError:
        raise BadArgument(f"--cpu-mask: {value!r} is not a hexadecimal number") from None
    _set_cores(cpu, {core for core in range(bits.bit_length()) if bits >> core & 1}, "--cpu-mask")


def _range(cpu: Any, value: str, _: Any) -> None:
    low, dash, high = value.partition("-")
    try:
        first, last = int(low or 0), int(high) if high else len(cpu.cpumask) - 1
    except ValueError:
        dash = ""
    if not dash:
        raise BadArgument(f"--cpu-range: {value!r} is not LOW-HIGH")
    _set_cores(cpu, set(range(first, last + 1)), "--cpu-range")


def _set_cores(cpu: Any, cores: set[int], flag: str) -> None:
    size = len(cpu.cpumask)
    if not cores or max(cores) >= size or min(cores) < 0:
        raise BadArgument(f"{flag}: cores are numbered from 0 to {size - 1}")
    cpu.cpumask = [known or core in cores for core, known in enumerate(cpu.cpumask)]
    cpu.mask_valid = True


def _strict(cpu: Any, value: int, _: Any) -> None:
    cpu.strict_cpu = bool(value)


def _priority(cpu: Any, value: int, x: Any) -> None:
    cpu.priority = x.ggml_sched_priority(value)


CPU_PARTS = {
    "{}": "cpuparams",
    "{}_batch": "cpuparams_batch",
    "draft_{}": "speculative.draft.cpuparams",
    "draft_{}_batch": "speculative.draft.cpuparams_batch",
}
CPU_ACTS: dict[str, Apply] = {
    "threads": _threads,
    "cpu_mask": _mask,
    "cpu_range": _range,
    "cpu_strict": _strict,
    "prio": _priority,
}

CPU: dict[str, Apply] = {
    shape.format(name): _on_cpu(part, act)
    for shape, part in CPU_PARTS.items()
    for name, act in CPU_ACTS.items()
    if shape.format(name) != "draft_cpu_range_batch"  # llama-server has no flag for it
}
