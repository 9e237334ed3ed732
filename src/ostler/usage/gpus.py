"""What GPUs do now: busy, warm, full. NVIDIA's by NVML, AMD's memory by the kernel's files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ostler.fit.amd import Amd
from ostler.fit.nvidia import running_nvml

log = logging.getLogger(__name__)

_SERIES = {3: "Kepler", 5: "Maxwell", 6: "Pascal", 7: "Volta", 8: "Ampere", 9: "Hopper"}
FLASH_ATTENTION_FROM = (8, 0)
"""FlashAttention 2 needs Ampere or newer (https://github.com/Dao-AILab/flash-attention)."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment; None is not told.

    `id` is that of the device ("cuda:0"), `busy_ratio` a share from 0 to 1 of the last moments,
    `temperature_c` degrees Celsius, `compute` its compute capability.
    """

    id: str
    name: str
    total_bytes: int | None = None
    used_bytes: int | None = None
    busy_ratio: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    compute: tuple[int, int] | None = None


def architecture_of(compute: tuple[int, int]) -> str:
    """NVIDIA's name of an architecture (https://developer.nvidia.com/cuda-gpus)."""
    major, minor = compute
    if major == 7 and minor >= 5:
        return "Turing"
    if major == 8 and minor >= 9:
        return "Ada Lovelace"
    if major in (10, 11, 12):
        return "Blackwell"
    return _SERIES.get(major, f"SM {major}.{minor}")


def has_flash_attention(compute: tuple[int, int]) -> bool:
    """Whether FlashAttention 2 runs on it."""
    return compute >= FLASH_ATTENTION_FROM


class GpuSensors:
    """Reads every GPU anew each time. `nvml` is its module, or a stand-in; `amd` reads AMD's."""

    def __init__(self, nvml: Any = None, amd: Amd | None = None) -> None:
        self._nvml = nvml
        self._amd = amd or Amd()

    def read(self) -> list[GpuReading]:
        """Every GPU that answers, by its number; blocking. One that does not is left out."""
        found: list[GpuReading] = []
        with running_nvml(self._nvml) as nvml:
            if nvml is not None:
                for index in range(_told(nvml, nvml.nvmlDeviceGetCount) or 0):
                    handle = _told(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
                    if handle is not None:
                        found.append(_nvidia(nvml, index, handle))
        gpus, _ = self._amd.look()
        found += [GpuReading(g.id, g.name, g.total_bytes, g.total_bytes - g.free_bytes) for g in gpus]
        return found


def _nvidia(nvml: Any, index: int, handle: Any) -> GpuReading:
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    use = _told(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    heat = _told(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    power = _told(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    compute = _told(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return GpuReading(
        id=f"cuda:{index}",
        name=str(_told(nvml, nvml.nvmlDeviceGetName, handle) or f"GPU {index}"),
        total_bytes=None if memory is None else int(memory.total),
        used_bytes=None if memory is None else int(memory.used),
        busy_ratio=None if use is None else int(use.gpu) / 100,
        temperature_c=None if heat is None else float(heat),
        power_w=None if power is None else int(power) / 1000,
        compute=None if compute is None else (int(compute[0]), int(compute[1])),
    )


def _told(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """An answer, None where this GPU or its driver does not tell."""
    try:
        return question(*arguments)
    except nvml.NVMLError as error:
        log.debug("NVML does not answer %s: %s", getattr(question, "__name__", question), error)
        return None
