"""The host's last hour, read from the machine that runs the tests, and GPUs through a stand-in of NVML."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ostler.core.clock import Clock
from ostler.fit.amd import Amd
from ostler.usage import host_series
from ostler.usage.gpus import GpuSensors, architecture_of, has_flash_attention
from ostler.usage.host_series import HostNotRead, HostSeries, Traffic, mean_of


class NoAnswer(Exception):
    """NVML's own error."""


class TwoGpus:
    """NVML over two GPUs, the second of which tells little."""

    NVMLError = NoAnswer
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"NVIDIA Number {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=1000, used=400)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._refuse(handle)
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetTemperature(self, handle: int, _kind: int) -> int:
        self._refuse(handle)
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._refuse(handle)
        return 250_000

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return (9, 0) if handle == 0 else (12, 0)

    def _refuse(self, handle: int) -> None:
        if handle == 1:
            raise NoAnswer("not supported")


def sensors(nvml: Any, tmp_path: Path) -> GpuSensors:
    return GpuSensors(nvml, Amd(tmp_path))


def test_a_gpu_tells_what_it_can(tmp_path: Path) -> None:
    first, second = sensors(TwoGpus(), tmp_path).read()
    assert (first.id, first.busy_ratio, first.temperature_c, first.power_w) == ("cuda:0", 0.37, 61, 250)
    assert (first.used_bytes, first.total_bytes, first.compute) == (400, 1000, (9, 0))
    assert (second.busy_ratio, second.temperature_c, second.used_bytes) == (None, None, 400)


def test_a_machine_without_nvml_has_no_gpus(tmp_path: Path) -> None:
    nvml = TwoGpus()

    def refuse() -> None:
        raise NoAnswer("no driver")

    nvml.nvmlInit = refuse  # type: ignore[method-assign]
    assert sensors(nvml, tmp_path).read() == []


@pytest.mark.parametrize(
    ("compute", "name", "flash"),
    [
        ((3, 5), "Kepler", False),
        ((5, 2), "Maxwell", False),
        ((6, 1), "Pascal", False),
        ((7, 0), "Volta", False),
        ((7, 5), "Turing", False),
        ((8, 6), "Ampere", True),
        ((8, 9), "Ada Lovelace", True),
        ((9, 0), "Hopper", True),
        ((10, 0), "Blackwell", True),
        ((12, 0), "Blackwell", True),
        ((15, 1), "SM 15.1", True),
    ],
)
def test_architectures_have_their_names(compute: tuple[int, int], name: str, flash: bool) -> None:
    assert (architecture_of(compute), has_flash_attention(compute)) == (name, flash)


async def test_the_first_reading_is_there_soon_and_says_what_is_true(tmp_path: Path) -> None:
    series = HostSeries(Clock(), lambda: tmp_path / "not" / "there", sensors(TwoGpus(), tmp_path))
    await series.start()
    async with asyncio.timeout(20):
        reading = await series.latest()
    await series.close()
    assert 0 <= reading.cpu_ratio <= 1 and reading.cores and all(0 <= core <= 1 for core in reading.cores)
    assert 0 < reading.memory_used_bytes < reading.memory_total_bytes
    assert 0 < reading.disk_used_bytes < reading.disk_total_bytes
    assert not any(name.startswith(("lo", "veth", "docker")) for name in reading.networks)
    assert [gpu.id for gpu in reading.gpus] == ["cuda:0", "cuda:1"]
    assert series.last is reading
    whole = series.series(timedelta(minutes=1), timedelta(seconds=15))
    assert whole == [reading] and series.series(timedelta(0), timedelta(seconds=15)) == []
    later = replace(
        reading,
        cpu_ratio=reading.cpu_ratio + 0.5,
        cores=tuple(core + 0.5 for core in reading.cores),
        disks={"new": Traffic(2.0, 4.0)},
    )
    mean = mean_of([reading, later])
    assert mean.cpu_ratio == pytest.approx(reading.cpu_ratio + 0.25)
    assert mean.cores[0] == pytest.approx(reading.cores[0] + 0.25)
    assert mean.disks == {"new": Traffic(2.0, 4.0)}


async def test_a_host_that_cannot_be_read_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(GpuSensors):
        tries = 0

        def read(self) -> list[Any]:
            self.tries += 1
            if self.tries < 3:
                raise OSError("the bus is gone")
            return []

    monkeypatch.setattr(host_series, "FIRST_S", 0.001)
    monkeypatch.setattr(host_series, "EVERY_S", 0.001)
    monkeypatch.setattr(host_series, "PATIENCE_S", 0.0)
    series = HostSeries(Clock(), lambda: tmp_path, Broken())
    with pytest.raises(HostNotRead):
        await series.latest()
    monkeypatch.setattr(host_series, "PATIENCE_S", 20.0)
    await series.start()
    assert (await series.latest()).gpus == ()
    await series.close()
    assert caplog.text.count("the host cannot be read") == 1 and "the bus is gone" in caplog.text
