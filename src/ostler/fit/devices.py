"""The devices of this host: NVIDIA GPUs by NVML, and the host's own memory within its cgroup."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

log = logging.getLogger(__name__)
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Device:
    """One place with memory of its own. `id` is "cpu" or "cuda:0"; sizes are in bytes."""

    id: str
    name: str
    kind: Literal["cpu", "cuda"]
    total_bytes: int
    free_bytes: int
    driver: str | None = None


class Devices:
    """Asks the drivers what is there. Nothing is cached: the answer is true now."""

    def __init__(self, cgroup: Path = CGROUP) -> None:
        self._cgroup = cgroup

    async def list(self) -> list[Device]:
        """GPUs by index, then the host."""
        return await asyncio.to_thread(self._list)

    def _list(self) -> builtins.list[Device]:
        return [*_nvidia(), self._host()]

    def _host(self) -> Device:
        memory = psutil.virtual_memory()
        total, free = memory.total, memory.available
        limit, used = self._read("memory.max"), self._read("memory.current")
        if limit is not None and limit < total:
            total = limit
            free = min(free, max(0, limit - (used or 0)))
        return Device("cpu", f"{psutil.cpu_count() or 1} CPU cores", "cpu", total, free)

    def _read(self, name: str) -> int | None:
        try:
            text = (self._cgroup / name).read_text().strip()
        except OSError:
            return None
        return int(text) if text.isdigit() else None


def _nvidia() -> Sequence[Device]:
    import pynvml  # deferred: a host without a GPU never pays for it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("NVML does not answer: %s", error)
        return []
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        return [_gpu(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("NVML failed while listing GPUs, none are shown: %s", error)
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, driver: str) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = str(nvml.nvmlDeviceGetName(handle))
    return Device(f"cuda:{index}", name, "cuda", int(memory.total), int(memory.free), driver)
