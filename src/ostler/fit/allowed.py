"""Which of the devices that are there a model may use."""

from __future__ import annotations

from collections.abc import Sequence

from ostler.fit.devices import Device


def allowed_devices(devices: Sequence[Device], names: Sequence[str]) -> list[Device]:
    """The devices for a model that may use the GPUs of these ids only, in their order; then the host.

    Without names all may be used; with "cpu" alone none but the host.
    """
    if not names:
        return list(devices)
    gpus = {device.id: device for device in devices if device.kind != "cpu"}
    return [
        *(gpus[name] for name in names if name in gpus),
        *(device for device in devices if device.kind == "cpu"),
    ]
