"""The devices of this host, as the operating system and the cgroup say."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ostler.fit.devices import Devices
from ostler.fit.pretend import BadDevices, pretended
from ostler.fit.processes import gpu_bytes, shared_bytes, strangers


async def test_the_host_is_always_a_device_with_its_memory(tmp_path: Path) -> None:
    host = (await Devices(tmp_path).list())[-1]
    assert (host.id, host.kind) == ("cpu", "cpu")
    assert host.total_bytes == psutil.virtual_memory().total
    assert 0 < host.free_bytes <= host.total_bytes


async def test_a_limit_of_the_cgroup_counts_as_the_host_s_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    host = (await Devices(tmp_path).list())[-1]
    assert (host.total_bytes, host.free_bytes) == (1_000_000, 600_000)
    (tmp_path / "memory.stat").write_text("anon 100000\nactive_file 50000\ninactive_file 200000\nshmem 7\n")
    assert (await Devices(tmp_path).list())[-1].free_bytes == 850_000, "page cache can be taken back"


async def test_a_cgroup_without_a_limit_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert (await Devices(tmp_path).list())[-1].total_bytes == psutil.virtual_memory().total


class NVMLError(Exception):
    """As NVML raises it."""


class NotSupported(NVMLError):
    """The GPU cannot answer this."""


class NotFound(NVMLError):
    """There is nothing in that place."""


@dataclass
class Nvml:
    """A stand-in for NVML: GPUs by index; an error in place of one is raised when it is asked for.

    `parts` are free bytes of MIG instances, by GPU and place. A handle is an index, or a GPU and a place.
    """

    gpus: Sequence[int | NVMLError]
    processes: Mapping[int, int] = field(default_factory=dict)
    init_error: NVMLError | None = None
    count_error: NVMLError | None = None
    parts: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupported
    NVMLError_NotFound = NotFound

    def nvmlInit(self) -> None:
        if self.init_error:
            raise self.init_error

    def nvmlShutdown(self) -> None:
        """Nothing to do."""

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        if self.count_error:
            raise self.count_error
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        if isinstance(handle, tuple):
            return SimpleNamespace(total=10 * 2**30, free=self.parts[handle[0]][handle[1]])
        found = self.gpus[handle]
        if isinstance(found, NVMLError):
            raise found
        return SimpleNamespace(total=24 * 2**30, free=found)

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return "A100 MIG 1g.10gb" if isinstance(handle, tuple) else "RTX"

    def nvmlDeviceGetMigMode(self, index: int) -> list[int]:
        if index not in self.parts:
            raise NotSupported
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, index: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, index: int, place: int) -> tuple[int, int]:
        if place not in self.parts[index]:
            raise NotFound
        return index, place

    def nvmlDeviceGetUUID(self, handle: tuple[int, int]) -> str:
        return f"MIG-{handle[0]}-{handle[1]}"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=n) for pid, n in self.processes.items()]


async def test_a_gpu_that_does_not_answer_is_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    devices = Devices(tmp_path, nvml=Nvml([1000, NVMLError("GPU is lost"), 3000]))
    for _ in range(2):
        found = await devices.list()
        assert [(d.id, d.free_bytes) for d in found[:-1]] == [("cuda:0", 1000), ("cuda:2", 3000)]
        assert found[0].driver == "580.1" and found[-1].id == "cpu"
    assert [r.message for r in caplog.records] == ["NVML does not tell GPU 1, it is left out: GPU is lost"]


async def test_a_gpu_that_comes_back_and_is_lost_again_is_named_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = Nvml([NVMLError("lost")])
    devices = Devices(tmp_path, nvml=nvml)
    for gpu in (NVMLError("lost"), 5, NVMLError("lost")):
        nvml.gpus = [gpu]
        await devices.list()
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "nvml", [Nvml([1], init_error=NVMLError("no driver")), Nvml([1], count_error=NVMLError("unknown"))]
)
async def test_without_nvml_only_the_host_is_there(tmp_path: Path, nvml: Nvml) -> None:
    assert [d.id for d in await Devices(tmp_path, nvml=nvml).list()] == ["cpu"]


async def test_a_gpu_without_memory_of_its_own_shares_the_host_s(tmp_path: Path) -> None:
    gpu, host = await Devices(tmp_path, nvml=Nvml([NotSupported()])).list()
    assert (gpu.id, gpu.pool) == ("cuda:0", "cpu")
    assert (gpu.total_bytes, gpu.free_bytes) == (host.total_bytes, host.free_bytes)


async def test_a_divided_gpu_is_shown_by_its_parts(tmp_path: Path) -> None:
    sight = await Devices(tmp_path, nvml=Nvml([5, 6], {7: 1}, parts={1: {0: 100, 3: 200}})).look()
    found = [(d.id, d.total_bytes, d.free_bytes) for d in sight.devices[:-1]]
    assert found[1:] == [("cuda:MIG-1-0", 10 * 2**30, 100), ("cuda:MIG-1-3", 10 * 2**30, 200)]
    assert found[0][0] == "cuda:0" and sight.processes["cuda:MIG-1-3"] == {7: 1}


async def test_no_gpu_has_more_free_than_it_has(tmp_path: Path) -> None:
    gpu, _ = await Devices(tmp_path, nvml=Nvml([99 * 2**40])).list()
    assert gpu.free_bytes == gpu.total_bytes == 24 * 2**30


async def test_what_processes_hold_on_gpus_is_seen(tmp_path: Path) -> None:
    sight = await Devices(tmp_path, nvml=Nvml([1000], {os.getpid(): 77, 1: 5})).look()
    assert sight.processes == {"cuda:0": {os.getpid(): 77, 1: 5}}
    assert gpu_bytes(os.getpid(), sight.processes) == {"cuda:0": 77}
    assert gpu_bytes(os.getppid(), sight.processes) == {"cuda:0": 77}, "a child's count"
    assert gpu_bytes(2**22 + 1, sight.processes) == {}
    assert strangers([os.getpid()], sight.processes) == {"cuda:0": {f"{psutil.Process(1).name()} (pid 1)": 5}}
    gone = {"cuda:0": {2**22 + 1: 9}}
    assert strangers([], gone) == {"cuda:0": {f"pid {2**22 + 1}": 9}}
    assert shared_bytes(os.getpid()) > 0 and shared_bytes(2**22 + 1) == 0


async def test_pretended_devices_take_the_place_of_what_is_here(tmp_path: Path) -> None:
    found = await Devices(tmp_path, pretend=pretended("2x24GiB, 8GiB"), nvml=Nvml([1])).list()
    gib = 2**30
    assert [(d.id, d.total_bytes) for d in found[:3]] == [
        ("cuda:0", 24 * gib),
        ("cuda:1", 24 * gib),
        ("cuda:2", 8 * gib),
    ]
    assert not any(d.is_real for d in found[:3])
    assert found[3].id == "cpu" and found[3].is_real, "the host stays real where it is not named"
    (host,) = await Devices(tmp_path, pretend=pretended("cpu:64GiB")).list()
    assert (host.id, host.free_bytes, host.is_real) == ("cpu", 64 * gib, False)


async def test_pretended_devices_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    file.write_text('{"devices": [{"name": "x", "memory": "8GiB", "free": "5GiB"}], "host": "9GiB"}')
    gpu, host = pretended(str(file))
    assert (gpu.name, gpu.free_bytes, host.free_bytes) == ("x", 5 * 2**30, 9 * 2**30)


@pytest.mark.parametrize("text", ["", "x", "2x", "cpu:", "cpu:1GiB,cpu:2GiB", "2x24GiB;8", "/no/such.json"])
def test_what_names_no_devices_is_refused(text: str) -> None:
    with pytest.raises(BadDevices, match="setting devices"):
        pretended(text)
