"""NVIDIA GPUs, by NVML."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ostler.fit.device import HOST_ID, Device

log = logging.getLogger(__name__)


class Nvidia:
    """Asks NVML anew each time. `nvml` is its module, or a stand-in."""

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml
        self._said: set[str] = set()

    def look(self) -> tuple[list[Device], dict[str, dict[int, int]]]:
        """Every GPU that answers, with the bytes by process on each; blocking.

        One that does not answer is left out, and that is said once. One whose memory is the host's has
        no size yet, and the host as its pool. One that is divided (MIG) is shown by its parts.
        """
        gpus: list[Device] = []
        processes: dict[str, dict[int, int]] = {}
        with running_nvml(self._nvml) as nvml:
            if nvml is None:
                return gpus, processes
            driver = self._ask("its driver's version", nvml, nvml.nvmlSystemGetDriverVersion)
            count = self._ask("the number of GPUs, none are shown", nvml, nvml.nvmlDeviceGetCount) or 0
            for index in range(count):
                found = self._ask(f"GPU {index}, it is left out", nvml, _gpus, nvml, index, driver)
                for gpu, handle in found or ():
                    gpus.append(gpu)
                    held = self._ask(f"the processes on {gpu.id}", nvml, _processes, nvml, handle)
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
def running_nvml(given: Any = None) -> Iterator[ModuleType | None]:
    """NVML, or what is given in its place, while it is used; None where it does not answer at all."""
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


def _gpus(nvml: Any, index: int, driver: str | None) -> list[tuple[Device, Any]]:
    """The GPU with its handle, or its parts with theirs."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    if _is_divided(nvml, handle):
        return [(_part(nvml, part, driver), part) for part in _parts(nvml, handle)]
    id, name = f"cuda:{index}", str(nvml.nvmlDeviceGetName(handle))
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:  # GB10, Jetson: the GPU has no memory of its own
        return [(Device(id, name, "cuda", 0, 0, driver, pool=HOST_ID), handle)]
    return [(Device(id, name, "cuda", int(memory.total), int(memory.free), driver), handle)]


def _is_divided(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_NotSupported:
        return False
    return bool(current)


def _parts(nvml: Any, handle: Any) -> list[Any]:
    """Handles of the MIG instances; their places are numbered with holes."""
    found = []
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
        except nvml.NVMLError_NotFound:
            continue
    return found


def _part(nvml: Any, handle: Any, driver: str | None) -> Device:
    """A MIG instance, with the id by which CUDA_VISIBLE_DEVICES knows it."""
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    id, name = f"cuda:{nvml.nvmlDeviceGetUUID(handle)}", str(nvml.nvmlDeviceGetName(handle))
    return Device(id, name, "cuda", int(memory.total), int(memory.free), driver)


def _processes(nvml: Any, handle: Any) -> dict[int, int]:
    """Bytes by process id; a process whose share the driver hides is left out."""
    running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return {int(p.pid): int(p.usedGpuMemory) for p in running if p.usedGpuMemory is not None}
