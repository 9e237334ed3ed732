"""Asking an executable which devices it sees."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ostler.engines.listed_devices import ListedDevice, device_env, read_devices
from ostler.engines.probe import Prober

MIB = 2**20
LISTED = """ggml_cuda_init: found 1 device
Available devices:
  CUDA0: NVIDIA L4 (22700 MiB, 22500 MiB free)
  ROCm1: AMD Radeon RX 7900 XTX (24560 MiB, 24510 MiB free)
  SYCL0: Intel(R) Arc(TM) A770 Graphics (15473 MiB, 15000 MiB free)
  MTL0: Apple M3 Max (49152 MiB, 49151 MiB free)
  Vulkan2: AMD Radeon (RADV (x)) (1 MiB, 1 MiB free)
  RPC0: 10.0.0.1:50052 (8000 MiB, 8000 MiB free)
  BLAS: Accelerate (0 MiB, 0 MiB free)
"""


def test_the_devices_are_read_from_the_list_that_a_program_prints() -> None:
    found = read_devices(LISTED)
    assert found is not None
    kinds = [(device.kind, device.number) for device in found]
    assert kinds == [("cuda", 0), ("rocm", 1), ("xpu", 0), ("metal", 0), ("vulkan", 2), (None, 0)]
    assert found[0] == ListedDevice("CUDA0", "cuda", 0, "NVIDIA L4", 22700 * MIB, 22500 * MIB)
    assert found[4].description == "AMD Radeon (RADV (x))"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Available devices:\n  (none)\n", ()),
        ("Available devices:\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n", ()),
        ("Available devices:\n  CUDA0: x (-5 MiB, 99999999999999999999 MiB free)\n: : :\n", ()),
        ("error: unknown argument: --list-devices\n", None),
        (None, None),
    ],
)
def test_a_program_that_names_no_gpu_is_told_from_one_that_says_nothing(
    text: str | None, found: tuple[()] | None
) -> None:
    assert read_devices(text) == found


async def test_the_built_in_engine_says_which_devices_it_sees() -> None:
    assert await Prober().devices((sys.executable, "-m", "ostler.engines.llama_server")) == ()


async def test_how_much_is_free_is_asked_again_only_when_it_must_be_fresh(tmp_path: Path) -> None:
    program, asked = tmp_path / "llama-server", tmp_path / "asked"
    line = "echo 'Available devices:'; echo '  Vulkan0: x (100 MiB, '$(wc -l < asked)' MiB free)'"
    program.write_text(f"#!/bin/sh\ncd {tmp_path}\n[ -e broken ] && exit 1\necho >> {asked}\n{line}\n")
    program.chmod(0o755)
    prober, command = Prober(), (str(program),)
    free = [
        [device.free_bytes // MIB for device in await prober.devices(command, fresh=fresh) or ()]
        for fresh in (True, False, True)
    ]
    assert free == [[1], [1], [2]]
    (tmp_path / "broken").touch()
    last = await prober.devices(command, fresh=True)
    assert last and last[0].free_bytes == 2 * MIB, "a list that fails once is no list of none"


@pytest.mark.parametrize(
    ("devices", "env"),
    [
        (["cuda:2", "cuda:0"], {"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        (["cuda:MIG-5c-1"], {"CUDA_VISIBLE_DEVICES": "MIG-5c-1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        (["rocm:1", "rocm:0"], {"HIP_VISIBLE_DEVICES": "1,0"}),
        (["xpu:0", "xpu:1"], {"ONEAPI_DEVICE_SELECTOR": "level_zero:0;level_zero:1"}),
        (["vulkan:1"], {"GGML_VK_VISIBLE_DEVICES": "1"}),
        (["metal:0"], {}),
        (["cuda:$(id)", "nonsense"], {}),
        ([], {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        (["cpu"], {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}),
    ],
)
def test_chosen_devices_become_the_variables_of_their_maker(devices: list[str], env: dict[str, str]) -> None:
    assert device_env(devices) == env
