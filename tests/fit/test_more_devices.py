"""GPUs that no NVIDIA driver tells of: by the kernel's files, and by what the engine lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from ostler.engines.listed_devices import ListedDevice
from ostler.fit.devices import Device, Devices
from ostler.fit.errors import ImpossibleOption
from ostler.fit.placement import usable_gpus

GIB = 2**30
HOST_BYTES = psutil.virtual_memory().total


class Kernel:
    """Files as Linux shows them, below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def card(self, number: int, slot: str, minor: int, **files: object) -> str:
        """An AMD card; its folder."""
        folder = f"sys/class/drm/card{number}/device"
        told: dict[str, object] = {
            "vendor": "0x1002",
            "uevent": f"DRIVER=amdgpu\nPCI_SLOT_NAME={slot}",
            "device": "0x744c",
        }
        told |= {
            "mem_info_vram_total": 24 * GIB,
            "mem_info_vram_used": GIB,
            "board_info": "type : cem",
        } | files
        for name, text in told.items():
            if text is not None:
                self.write(f"{folder}/{name}", f"{text}\n")
        self.write(f"{folder}/drm/renderD{minor}/dev", "226:128\n")
        return folder

    def compute_nodes(self, *minors: int) -> None:
        """The nodes of the compute driver, in its order; 0 is a CPU."""
        for node, minor in enumerate(minors):
            text = f"cpu_cores_count 0\nsimd_count 96\ndrm_render_minor {minor}\nmax_waves_per_simd 16\n"
            self.write(f"sys/class/kfd/kfd/topology/nodes/{node}/properties", text)

    def process(self, pid: int, *clients: tuple[str, str, str]) -> None:
        """A process with files of GPUs open: (slot, client, memory lines)."""
        for number, (slot, client, memory) in enumerate(clients, 3):
            text = f"pos:\t0\ndrm-driver:\tamdgpu\ndrm-pdev:\t{slot}\ndrm-client-id:\t{client}\n{memory}\n"
            self.write(f"proc/{pid}/fdinfo/{number}", text)
            link = self.root / f"proc/{pid}/fd/{number}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/dev/dri/renderD128")
        self.write(f"proc/{pid}/fdinfo/99", "pos:\t0\n")
        (self.root / f"proc/{pid}/fd/99").symlink_to("/tmp/file")

    def devices(self, listed: Sequence[ListedDevice] | None = None) -> Devices:
        """What is seen with these files and no NVIDIA driver."""

        async def of_engine() -> Sequence[ListedDevice] | None:
            return listed

        return Devices(self.root / "cgroup", nvml=NoNvml, root=self.root, listed=of_engine)


class NoNvml:
    """NVML on a machine without NVIDIA's driver."""

    class NVMLError(Exception):
        """As NVML raises it."""

    @staticmethod
    def nvmlInit() -> None:
        raise NoNvml.NVMLError("library not found")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A machine whose files can be written."""
    return Kernel(tmp_path)


async def test_amd_gpus_are_numbered_as_their_runtime_counts_them(kernel: Kernel) -> None:
    kernel.card(0, "0000:03:00.0", 128, product_name="Radeon RX 7900 XTX")
    kernel.card(1, "0000:83:00.0", 129, mem_info_vram_total=48 * GIB)
    kernel.write("sys/class/drm/card1-DP-1/status", "connected")
    kernel.card(2, "0000:99:00.0", 130, vendor="0x8086")
    kernel.compute_nodes(0, 129, 128)
    found = await kernel.devices().list()
    assert [(d.id, d.name, d.total_bytes, d.free_bytes) for d in found[:-1]] == [
        ("rocm:0", "AMD GPU 0x744c", 48 * GIB, 47 * GIB),
        ("rocm:1", "Radeon RX 7900 XTX", 24 * GIB, 23 * GIB),
    ]
    assert all(d.kind == "rocm" and d.pool is None for d in found[:-1])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("mem_info_vram_total", None),
        ("mem_info_vram_used", None),
        ("mem_info_vram_total", "many"),
        ("mem_info_vram_total", "0"),
        ("mem_info_vram_total", "-1"),
        ("mem_info_vram_total", "9" * 40),
        ("mem_info_vram_used", "\0\xff"),
        ("uevent", None),
    ],
)
async def test_a_card_whose_files_vanish_or_are_garbage_is_left_out(
    kernel: Kernel, file: str, text: str | None
) -> None:
    kernel.card(0, "0000:03:00.0", 128, **{file: text})
    kernel.card(1, "0000:83:00.0", 129, mem_info_vram_used=99 * GIB)
    (gpu, _) = await kernel.devices().list()
    assert (gpu.id, gpu.free_bytes) == ("rocm:0", 0)


async def test_what_processes_hold_on_amd_gpus_is_read_once_for_each_client(kernel: Kernel) -> None:
    kernel.card(0, "0000:03:00.0", 128)
    kernel.card(1, "0000:83:00.0", 129)
    first, second = "0000:03:00.0", "0000:83:00.0"
    kernel.process(
        7,
        (first, "1", "drm-memory-vram:\t1024 KiB"),
        (first, "1", "drm-memory-vram:\t1024 KiB"),
        (first, "2", "drm-resident-vram:\t2 MiB\ndrm-memory-vram:\t1 KiB\ndrm-resident-gtt: 1 KiB"),
        (second, "3", "drm-memory-vram:\tmuch KiB"),
    )
    kernel.process(8, ("0000:aa:00.0", "1", "drm-memory-vram:\t5 MiB"))
    sight = await kernel.devices().look()
    assert sight.processes == {"rocm:0": {7: 3 * 2**20 + 1024}, "rocm:1": {}}


async def test_an_integrated_amd_gpu_takes_from_the_host(kernel: Kernel) -> None:
    small = {"board_info": None, "mem_info_vram_total": GIB // 2, "mem_info_vram_used": 0}
    kernel.card(0, "0000:c4:00.0", 128, **small, mem_info_gtt_total=GIB, mem_info_gtt_used=0)
    gpu, host = await kernel.devices().list()
    assert (gpu.total_bytes, gpu.pool) == (GIB, "cpu") and gpu.free_bytes <= host.free_bytes


def listed(kind: str | None, total: int, free: int | None = None, number: int = 0) -> ListedDevice:
    return ListedDevice(f"X{number}", kind, number, "a GPU", total, total if free is None else free)


async def test_where_no_driver_tells_of_a_gpu_the_engine_is_believed(kernel: Kernel) -> None:
    kernel.write("dev/dri/renderD128", "")
    found = await kernel.devices([listed("xpu", GIB, GIB - 5), listed("vulkan", 2 * GIB, number=1)]).list()
    assert [(d.id, d.free_bytes, d.told_by) for d in found[:-1]] == [
        ("xpu:0", GIB - 5, "engine"),
        ("vulkan:1", 2 * GIB, "engine"),
    ]
    assert found[-1].id == "cpu"


async def test_a_driver_is_believed_before_the_engine(kernel: Kernel) -> None:
    kernel.write("dev/dri/renderD128", "")
    kernel.card(0, "0000:03:00.0", 128)
    found = await kernel.devices([listed("vulkan", GIB)]).list()
    assert [d.id for d in found] == ["rocm:0", "cpu"], "the same card is not shown twice"


async def test_without_any_gpu_node_no_engine_is_started(kernel: Kernel) -> None:
    assert [d.id for d in await kernel.devices([listed("vulkan", GIB)]).list()] == ["cpu"]


@pytest.mark.parametrize("device", [listed("metal", GIB), listed("vulkan", int(HOST_BYTES * 0.95))])
async def test_a_gpu_that_claims_the_host_s_memory_is_one_pool_with_it(
    kernel: Kernel, device: ListedDevice
) -> None:
    kernel.write("dev/dri/renderD128", "")
    gpu, host = await kernel.devices([device]).list()
    assert gpu.pool == "cpu" and gpu.total_bytes == device.total_bytes
    assert gpu.free_bytes == min(device.total_bytes, host.free_bytes)


@pytest.mark.parametrize("total", [0, 65 << 40, 2**62])
@pytest.mark.parametrize("kind", ["metal", "vulkan", None])
async def test_absurd_sizes_are_not_believed(kernel: Kernel, kind: str | None, total: int) -> None:
    kernel.write("dev/dri/renderD128", "")
    assert [d.id for d in await kernel.devices([listed(kind, total)]).list()] == ["cpu"]


def gpu(id: str, total: int = GIB, pool: str | None = None) -> Device:
    kind = id.partition(":")[0]
    return Device(id, "a GPU", kind, total, total, pool=pool)  # type: ignore[arg-type]


def used(there: Sequence[Device], **options: object) -> list[str]:
    return [device.id for device in usable_gpus(options, there)]


def test_of_several_makers_one_is_used_and_integrated_gpus_only_alone() -> None:
    mixed = [gpu("cuda:0", 8 * GIB), gpu("cuda:1", 8 * GIB), gpu("rocm:0", 12 * GIB)]
    assert used([*mixed, gpu("rocm:1", 64 * GIB, pool="cpu")]) == ["cuda:0", "cuda:1"]
    assert used([gpu("rocm:0", pool="cpu")]) == ["rocm:0"]
    assert used(mixed, devices=["rocm:0"]) == ["rocm:0"], "unless it is named"
    assert used([]) == []


def test_of_a_divided_gpu_a_process_sees_one_part() -> None:
    parts = [gpu("cuda:MIG-a"), gpu("cuda:MIG-b")]
    assert used(parts) == ["cuda:MIG-a"]
    assert used(parts, devices="cuda:MIG-b") == ["cuda:MIG-b"]
    assert used([gpu("cuda:0"), *parts]) == ["cuda:0"]


def test_the_engine_counts_the_gpus_that_are_there_and_we_keep_their_numbers() -> None:
    holes = [gpu("cuda:0"), gpu("cuda:2"), gpu("xpu:0"), gpu("metal:0")]
    assert used(holes, devices=["CUDA1", "SYCL0", "MTL0"]) == ["cuda:2", "xpu:0", "metal:0"]
    assert used(holes, devices=["cuda:2"]) == ["cuda:2"]
    for missing in ("cuda:1", "CUDA2", "CUDA", "Vulkan0", "", "x:y:z"):
        with pytest.raises(ImpossibleOption):
            usable_gpus({"devices": [missing]}, holes)


def test_the_stand_in_is_asked_as_the_real_one() -> None:
    import pynvml

    names = ("NVMLError_NotSupported", "NVMLError_NotFound", "nvmlDeviceGetMigMode", "nvmlDeviceGetUUID")
    more = ("nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetMaxMigDeviceCount")
    assert all(hasattr(pynvml, name) for name in (*names, *more))
