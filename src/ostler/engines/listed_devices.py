"""The devices that an engine lists, and the variables that leave it only some of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MIB = 1024 * 1024
KINDS: Mapping[str, str] = {
    "cuda": "cuda",
    "rocm": "rocm",
    "sycl": "xpu",
    "mtl": "metal",
    "metal": "metal",
    "vulkan": "vulkan",
}
"""Our kind of device by the name of llama.cpp's backend (`GGML_*_NAME` in ggml/include)."""

_HEADING = "Available devices:"
_LINE = re.compile(r"\s*([A-Za-z_]{1,20})(\d{0,4}): (.{1,300}) \((\d{1,15}) MiB, (\d{1,15}) MiB free\)\s*")
_NAMED = re.compile(r"([A-Za-z_]{1,20})(\d{0,4})")
_OURS = re.compile(r"(cuda|rocm|xpu|vulkan):(\w[\w-]*)")


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """One device in an engine's words. `kind` is ours, None for a backend that we do not know.

    Sizes are in bytes as the engine says them, in whole MiB: nothing about them is checked here.
    """

    name: str
    kind: str | None
    number: int
    description: str
    total_bytes: int
    free_bytes: int


def read_devices(text: str | None) -> tuple[ListedDevice, ...] | None:
    """What `--list-devices` prints (`common_print_available_devices`); None where it is not that.

    Backends without memory of their own, such as BLAS, are left out: the CPU works for them.
    """
    _, found, listed = (text or "").partition(_HEADING)
    if not found:
        return None
    matches = [match for line in listed.splitlines() if (match := _LINE.fullmatch(line))]
    devices = (
        ListedDevice(
            name=match[1] + match[2],
            kind=KINDS.get(match[1].lower()),
            number=int(match[2] or 0),
            description=match[3].strip(),
            total_bytes=int(match[4]) * MIB,
            free_bytes=int(match[5]) * MIB,
        )
        for match in matches
    )
    return tuple(device for device in devices if device.kind or device.total_bytes)


def our_id(name: str) -> str | None:
    """Our id of a device by the engine's name of it: "xpu:0" for SYCL0; None for a backend unknown to us."""
    match = _NAMED.fullmatch(name)
    kind = KINDS.get(match[1].lower()) if match else None
    return f"{kind}:{int(match[2] or 0)}" if match and kind else None


def device_env(devices: Sequence[str]) -> dict[str, str]:
    """The variables with which a process sees only these devices ("cuda:0"); none named means all.

    CUDA numbers GPUs by speed unless it is told to count as the driver does, which is how our ids count
    (CUDA C++ Programming Guide, "CUDA Environment Variables"). The others: ROCm's "GPU isolation
    techniques", llama.cpp's docs/backend/SYCL.md and `ggml_vk_instance_init`. Metal has no variable.
    """
    if not devices:
        return dict(_CUDA_ORDER)
    if tuple(devices) == ("cpu",):
        return {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}
    by_kind: dict[str, list[str]] = {}
    for device in devices:
        if match := _OURS.fullmatch(device):
            by_kind.setdefault(match[1], []).append(match[2])
    env: dict[str, str] = {}
    for kind, numbers in by_kind.items():
        env |= _SELECTORS[kind](numbers)
    return env


_CUDA_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
_SELECTORS: Mapping[str, Callable[[Sequence[str]], dict[str, str]]] = {
    "cuda": lambda n: {**_CUDA_ORDER, "CUDA_VISIBLE_DEVICES": ",".join(n)},
    "rocm": lambda n: {"HIP_VISIBLE_DEVICES": ",".join(n)},
    "xpu": lambda n: {"ONEAPI_DEVICE_SELECTOR": ";".join(f"level_zero:{number}" for number in n)},
    "vulkan": lambda n: {"GGML_VK_VISIBLE_DEVICES": ",".join(n)},
}
