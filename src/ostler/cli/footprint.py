"""What a model takes, estimated and measured, as a person reads it."""

from __future__ import annotations

from ostler.cli import human
from ostler.cli.client import Json

EXACTNESS = {
    "measured": "measured when it ran",
    "engine": "exact, by the engine",
    "estimated": "estimated",
}


def measured_beside(measured: int, estimated: int | None) -> str:
    """What was measured, and how far the estimate was from it."""
    if not estimated:
        return human.size(measured)
    off = (estimated - measured) / measured
    return f"{human.size(measured)} measured, {human.size(estimated)} estimated ({off:+.0%})"


def memory_facts(memory: Json) -> list[tuple[str, str | None]]:
    """One line for each device, then the loads; nothing where nothing is known."""
    facts: list[tuple[str, str | None]] = []
    for device in memory.get("devices") or ():
        measured, estimated = device.get("measured_bytes"), device.get("estimated_bytes")
        if measured:
            facts.append((str(device["id"]), measured_beside(measured, estimated)))
        elif estimated:
            facts.append((str(device["id"]), f"{human.size(estimated)} estimated, not measured yet"))
    loads = ", ".join(human.duration(seconds) for seconds in memory.get("load_seconds") or ())
    expected = memory.get("expected_load_s")
    facts.append(("last loads took", loads or None))
    if not loads and expected is not None:
        facts.append(("will load in about", human.duration(expected)))
    return facts
