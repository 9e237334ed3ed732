"""Which devices an engine sees, by the variables that its recipe sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ostler.fit.devices import Device


def visible_gpus(devices: Sequence[Device], env: Mapping[str, str]) -> list[Device]:
    """The devices that are left where the variable CUDA_VISIBLE_DEVICES names some GPUs by their number.

    They come in its order, and an unknown name ends the list, as the driver has it (CUDA C++ Programming
    Guide, "CUDA Environment Variables"). Names of another kind (GPU-uuid, MIG) are not looked up.
    """
    stated = env.get("CUDA_VISIBLE_DEVICES")
    names = stated.split(",") if stated else []
    if stated is None or any(name.strip().startswith(("GPU-", "MIG")) for name in names):
        return list(devices)
    gpus = {device.id: device for device in devices if device.kind == "cuda"}
    found = []
    for name in names:
        gpu = gpus.get(f"cuda:{name.strip()}")
        if gpu is None:
            break
        found.append(gpu)
    return [*found, *(device for device in devices if device.kind != "cuda")]
