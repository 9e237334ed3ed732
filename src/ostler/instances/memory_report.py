"""What one model takes, as estimated and as measured, side by side."""

from __future__ import annotations

from typing import Any

from ostler.core.errors import OstlerError
from ostler.fit.ledger import Bytes
from ostler.instances.house import House
from ostler.models.records import Model


async def memory_report(house: House, model: Model) -> dict[str, Any] | None:
    """JSON-ready: by device the estimate, the most that runs of the same launch took, and what a start
    is planned with; the seconds of the last loads. None where the model's files cannot be read.
    """
    if not house.memory.devices:
        await house.memory.look()
    try:
        need = await house.memory.need(model)
        found, expected = await house.experience.earlier(model)
    except OstlerError:
        return None  # what is wrong with its files stands elsewhere in the answer
    measured = found.measured if found else {}
    ids = sorted({*need.by_device, *need.estimated, *measured})
    return {
        "exactness": need.exactness if need.is_known else None,
        "devices": [_device(id, need.by_device, need.estimated, measured) for id in ids],
        "has_served": bool(found and found.has_served),
        "load_seconds": list(found.load_seconds) if found else [],
        "expected_load_s": expected,
        "measured_at": found.seen_at if found else None,
    }


def _device(id: str, need: Bytes, estimated: Bytes, measured: Bytes) -> dict[str, Any]:
    ours, theirs = estimated.get(id), measured.get(id)
    return {
        "id": id,
        "planned_bytes": need.get(id, 0),
        "estimated_bytes": ours,
        "measured_bytes": theirs,
        "error": round((ours - theirs) / theirs, 4) if ours is not None and theirs else None,
    }
