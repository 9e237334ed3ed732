"""The devices of this host: NVIDIA GPUs by NVML, and the host's own memory within its cgroup."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import psutil

log = logging.getLogger(__name__)
CGROUP = Path("/sys/fs/cgroup")
_CACHED = ("active_file", "inactive_file")


@dataclass(frozen=True, slots=True)
class Device:
    """One place with memory of its own. `id` is "cpu" or "cuda:0"; sizes are in bytes.

    `is_real` is False for one that the setting `devices` only describes.
    """

    id: str
    name: str
    kind: Literal["cpu", "cuda"]
    total_bytes: int
    free_bytes: int
    driver: str | None = None
    is_real: bool = True


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen at one moment: the devices, and the bytes by process id on each GPU."""

    devices: Sequence[Device]
    processes: Mapping[str, Mapping[int, int]]


class Devices:
    """Asks the drivers what is there. Nothing is cached: the answer is true now.

    `pretend` takes the place of what is here; the host stays real where it names none. `nvml` is the
    NVML module, or a stand-in.
    """

    def __init__(self, cgroup: Path = CGROUP, *, pretend: Sequence[Device] = (), nvml: Any = None) -> None:
        self._cgroup = cgroup
        self._pretend = pretend
        self._nvml = nvml
        self._said: set[str] = set()

    async def list(self) -> builtins.list[Device]:
        """GPUs by index, then the host."""
        return list((await self.look()).devices)

    async def look(self) -> Sight:
        """The devices, with what each process holds on the GPUs."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> Sight:
        if self._pretend:
            has_host = any(device.kind == "cpu" for device in self._pretend)
            return Sight([*self._pretend, *([] if has_host else [self._host()])], {})
        gpus, processes = self._nvidia()
        return Sight([*gpus, self._host()], processes)

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

    def _nvidia(self) -> tuple[builtins.list[Device], dict[str, dict[int, int]]]:
        """Every GPU that answers. One that does not is left out, and that is said once."""
        gpus: list[Device] = []
        processes: dict[str, dict[int, int]] = {}
        with _running(self._nvml) as nvml:
            if nvml is None:
                return gpus, processes
            driver = self._ask("its driver's version", nvml, nvml.nvmlSystemGetDriverVersion)
            count = self._ask("the number of GPUs, none are shown", nvml, nvml.nvmlDeviceGetCount) or 0
            for index in range(count):
                gpu = self._ask(f"GPU {index}, it is left out", nvml, _gpu, nvml, index, driver)
                if gpu is not None:
                    gpus.append(gpu)
                    held = self._ask(f"the processes on GPU {index}", nvml, _processes, nvml, index)
                    processes[gpu.id] = held or {}
        return gpus, processes

    def _ask(self, what: str, nvml: Any, question: Any, *arguments: Any) -> Any:
        """The answer, or None where NVML fails; a fault is logged when it is new."""
        try:
            answer = question(*arguments)
        except nvml.NVMLError as error:
            said = f"{what}: {error}"
            if said not in self._said:
                log.warning("NVML does not tell %s", said)
                self._said.add(said)
            return None
        self._said = {said for said in self._said if not said.startswith(f"{what}: ")}
        return answer


@contextmanager
def _running(given: Any) -> Iterator[ModuleType | None]:
    """NVML while it is used, None where it does not answer at all."""
    import pynvml  # deferred: commands that look at no device never pay for it

    nvml = given or pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.debug("NVML does not answer: %s", error)
        yield None
        return
    try:
        yield nvml
    finally:
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            log.warning("NVML cannot be ended: %s", error)


def _gpu(nvml: Any, index: int, driver: str | None) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = str(nvml.nvmlDeviceGetName(handle))
    return Device(f"cuda:{index}", name, "cuda", int(memory.total), int(memory.free), driver)


def _processes(nvml: Any, index: int) -> dict[int, int]:
    """Bytes by process id; a process whose share the driver hides is left out."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return {int(p.pid): int(p.usedGpuMemory) for p in running if p.usedGpuMemory is not None}
