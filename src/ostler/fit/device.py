"""What a device is, and which devices share one memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cpu", "cuda", "rocm", "xpu", "metal", "vulkan"]
HOST_ID = "cpu"


@dataclass(frozen=True, slots=True)
class Device:
    """One place for a model. `id` is "cpu" or a kind with a number ("cuda:0"); sizes are in bytes.

    `is_real` is False for one that the setting `devices` only describes. `told_by` says who gave the
    sizes; an engine does not tell which process holds what. A device with a `pool` has no memory of its
    own: it takes from that of the device named there, at most `total_bytes`.
    """

    id: str
    name: str
    kind: Kind
    total_bytes: int
    free_bytes: int
    driver: str | None = None
    is_real: bool = True
    pool: str | None = None
    told_by: Literal["driver", "engine"] = "driver"


def pooled(by_device: Mapping[str, int], devices: Sequence[Device]) -> dict[str, int]:
    """Bytes by device, where those of a device without memory of its own count on its pool as well.

    So the same byte stands in two accounts: against the limit of the one, and the memory of the other.
    """
    found = dict(by_device)
    for device in devices:
        if device.pool is not None and by_device.get(device.id):
            found[device.pool] = found.get(device.pool, 0) + by_device[device.id]
    return found


def kept_back(device: Device, reserve: Mapping[str, int]) -> int:
    """Bytes of a device that models never get. A reserve for all devices counts once for each pool."""
    return reserve.get(device.id, 0 if device.pool else reserve.get("", 0))
