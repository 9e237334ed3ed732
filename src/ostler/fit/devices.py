"""The devices of this host: GPUs by their drivers or the engine, and the host's memory within its cgroup."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import psutil

from ostler.engines.listed_devices import ListedDevice
from ostler.fit.amd import Amd
from ostler.fit.device import HOST_ID, Kind
from ostler.fit.device import Device as Device
from ostler.fit.nvidia import Nvidia

CGROUP = Path("/sys/fs/cgroup")
MAX_BYTES = 64 << 40
SHARED_FROM, SHARED_TO = 0.75, 1.05
"""Of the host's memory: what integrated GPUs claim of it, by their drivers."""
GPU_NODES = ("dev/dri/renderD*", "dev/nvidia*", "dev/nvmap", "dev/kfd", "dev/dxg")
"""Where Linux drivers offer GPUs to programs: DRM, NVIDIA, Jetson, ROCm, and WSL."""
_CACHED = ("active_file", "inactive_file")


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen at one moment: the devices, and the bytes by process id on each GPU."""

    devices: Sequence[Device]
    processes: Mapping[str, Mapping[int, int]]


Listed = Callable[[], Awaitable[Sequence[ListedDevice] | None]]


class Devices:
    """Asks the drivers what is there. Nothing is cached: the answer is true now.

    `pretend` takes the place of what is here; the host stays real where it names none. `listed` gives the
    GPUs that the engine sees, which are believed where no driver tells of any. `root` and `nvml` are the
    files and the library of the drivers, or stand-ins.
    """

    def __init__(
        self,
        cgroup: Path = CGROUP,
        *,
        pretend: Sequence[Device] = (),
        nvml: Any = None,
        root: Path = Path("/"),
        listed: Listed | None = None,
    ) -> None:
        self._cgroup = cgroup
        self._pretend = pretend
        self._drivers = (Nvidia(nvml), Amd(root))
        self._listed = listed
        self._root = root

    async def list(self) -> builtins.list[Device]:
        """GPUs by index, then the host."""
        return list((await self.look()).devices)

    async def look(self) -> Sight:
        """The devices, with what each process holds on the GPUs."""
        sight = await asyncio.to_thread(self._look)
        if self._pretend or self._listed is None or len(sight.devices) > 1 or not self._may_have_gpus():
            return sight
        (host,) = sight.devices
        found = [_of_engine(device, host) for device in await self._listed() or ()]
        return Sight([*(device for device in found if device is not None), host], {})

    def _may_have_gpus(self) -> bool:
        """False where no driver offers a node to open, so that no engine is started for nothing."""
        return not sys.platform.startswith("linux") or any(any(self._root.glob(node)) for node in GPU_NODES)

    def _look(self) -> Sight:
        if self._pretend:
            has_host = any(device.kind == "cpu" for device in self._pretend)
            return Sight([*self._pretend, *([] if has_host else [self._host()])], {})
        host = self._host()
        gpus: list[Device] = []
        processes: dict[str, dict[int, int]] = {}
        for driver in self._drivers:
            found, held = driver.look()
            gpus += [within(gpu, host) for gpu in found if gpu.pool or gpu.total_bytes > 0]
            processes |= held
        return Sight([*gpus, host], processes)

    def _host(self) -> Device:
        memory = psutil.virtual_memory()
        total, free = memory.total, memory.available
        limit, used = self._read("memory.max"), self._read("memory.current")
        if limit is not None and limit < total:
            total = limit
            free = min(free, max(0, limit - max(0, (used or 0) - self._cached())))
        return Device("cpu", f"{psutil.cpu_count() or 1} CPU cores", "cpu", total, free)

    def _read(self, name: str) -> int | None:
        try:
            text = (self._cgroup / name).read_text().strip()
        except OSError:
            return None
        return int(text) if text.isdigit() else None

    def _cached(self) -> int:
        """Bytes of page cache within the cgroup, which the kernel takes back before it runs short.

        `memory.current` counts them as used (cgroup-v2.rst, "memory.stat").
        """
        try:
            lines = (self._cgroup / "memory.stat").read_text().splitlines()
        except OSError:
            return 0
        words = [line.split() for line in lines]
        return sum(int(w[1]) for w in words if len(w) == 2 and w[0] in _CACHED and w[1].isdigit())


def within(gpu: Device, host: Device) -> Device:
    """The GPU with sizes that can be true: no more free than there is, of a pool at most the host's."""
    total, free = gpu.total_bytes, min(gpu.free_bytes, gpu.total_bytes)
    if gpu.pool is not None:
        total = min(total or host.total_bytes, host.total_bytes)
        free = min(total if gpu.total_bytes == 0 else free, host.free_bytes)
    return replace(gpu, total_bytes=total, free_bytes=max(0, free))


def _of_engine(listed: ListedDevice, host: Device) -> Device | None:
    """A device that the engine lists, None for one that is none of ours or has an absurd size.

    The list does not say whether a GPU has memory of its own. Apple's have none; any other that claims
    about as much as the host has is taken for a part of it: integrated GPUs, Jetson.
    """
    if listed.kind is None or not 0 < listed.total_bytes <= MAX_BYTES:
        return None
    memory = psutil.virtual_memory().total
    is_shared = listed.kind == "metal" or SHARED_FROM <= listed.total_bytes / memory <= SHARED_TO
    kind = cast(Kind, listed.kind)
    id, pool = f"{kind}:{listed.number}", HOST_ID if is_shared else None
    name, total, free = listed.description, listed.total_bytes, listed.free_bytes
    return within(Device(id, name, kind, total, free, pool=pool, told_by="engine"), host)
