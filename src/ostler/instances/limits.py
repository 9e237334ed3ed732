"""What a model's own container may take of a device, however much the device has.

A need over such a limit is refused like one over the machine. Options that are left open are chosen to stay
within it; the engine itself does not know of it: it asks the system, which tells of the whole machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ostler.core.sizes import size_text
from ostler.fit.device import Device, kept_back
from ostler.fit.ledger import Bytes
from ostler.models.records import HOST_DEVICE, Model
from ostler.runtimes.container_options import ContainerOptions

PROCESS = "process"


def own_limits(model: Model) -> dict[str, int]:
    """Bytes by device id; empty where nothing limits it."""
    if model.runtime == PROCESS:
        return {}
    memory = ContainerOptions.read(model.runtime_options).memory
    return {} if memory is None else {HOST_DEVICE: memory}


def within_limits(devices: Sequence[Device], limits: Bytes, reserve: Bytes) -> list[Device]:
    """The devices as they are for a model with these limits, which `reserve` does not make smaller."""
    return [
        _limited(device, limits[device.id], kept_back(device, reserve)) if device.id in limits else device
        for device in devices
    ]


def _limited(device: Device, limit_bytes: int, reserve_bytes: int) -> Device:
    if limit_bytes + reserve_bytes >= device.total_bytes:
        return device
    return replace(
        device,
        name=f"a container of {size_text(limit_bytes)} (runtime_options.memory)",
        total_bytes=limit_bytes + reserve_bytes,
        free_bytes=min(device.free_bytes, limit_bytes),
    )


def beyond_limit(device_id: str, need_bytes: int, limit_bytes: int) -> str:
    """One sentence of a need that is larger than the limit, with the field that sets it."""
    need, limit = size_text(need_bytes), size_text(limit_bytes)
    return f"it needs {need} on {device_id}, where its container may take {limit} (runtime_options.memory)"
