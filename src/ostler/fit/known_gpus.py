"""GPUs and chips by name, with the memory that a program sees.

`mib` is the total that `nvidia-smi` shows (`memory.total`, MiB) for the card as it is delivered: on
data centre cards with GDDR memory ECC is on and takes a sixteenth. Drivers differ by a few MiB.
Source: output of `nvidia-smi` in public repositories (looked up in November 2026) for most of the cards.
For A30, A100 40GB, V100, P100, RTX 30, 20 and GTX 10 it is the size on NVIDIA's data sheet, for P40 that
size without a sixteenth, for L40 the figure of the sister card.

Of AMD's and Intel's cards it is the size on the data sheet, which their tools show but for some 20 MiB.
Where a GPU takes from the memory of the whole machine (`is_unified`), `mib` is that memory, and
`share` how much of it a GPU may have: on Apple's chips two thirds, three quarters from 36 GB on, which is
what `recommendedMaxWorkingSetSize` says by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostler.fit.device import Kind

MIB = 1024 * 1024
GIB_IN_MIB = 1024


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """One kind of GPU; `mib` is its memory in MiB, or the whole machine's where that is unified."""

    name: str
    mib: int
    kind: Kind = "cuda"
    is_unified: bool = False
    share: float = 1.0

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return self.mib * MIB


_APPLE_SIZES_GB: Mapping[str, tuple[int, ...]] = {
    "M1": (8, 16),
    "M1 Pro": (16, 32),
    "M1 Max": (32, 64),
    "M1 Ultra": (64, 128),
    "M2": (8, 16, 24),
    "M2 Pro": (16, 32),
    "M2 Max": (32, 64, 96),
    "M2 Ultra": (64, 128, 192),
    "M3": (8, 16, 24),
    "M3 Pro": (18, 36),
    "M3 Max": (36, 48, 64, 96, 128),
    "M3 Ultra": (96, 256, 512),
    "M4": (16, 24, 32),
    "M4 Pro": (24, 48, 64),
    "M4 Max": (36, 48, 64, 128),
    "M5": (16, 24, 32),
}
"""Sizes in which Apple sells each chip (its technical specifications)."""


def _apple() -> dict[str, KnownGpu]:
    return {
        f"{chip.lower().replace(' ', '-')}-{size}gb": KnownGpu(
            f"Apple {chip} {size}GB", size * GIB_IN_MIB, "metal", True, 0.75 if size >= 36 else 2 / 3
        )
        for chip, sizes in _APPLE_SIZES_GB.items()
        for size in sizes
    }


KNOWN_GPUS: Mapping[str, KnownGpu] = {
    # Data centre
    "b200": KnownGpu("NVIDIA B200", 183_359),
    "gh200-96gb": KnownGpu("NVIDIA GH200 96GB HBM3", 97_871),
    "h200": KnownGpu("NVIDIA H200 141GB", 143_771),
    "h100-80gb": KnownGpu("NVIDIA H100 80GB", 81_559),
    "h100-nvl": KnownGpu("NVIDIA H100 NVL 94GB", 95_830),
    "a100-80gb": KnownGpu("NVIDIA A100 80GB", 81_920),
    "a100-40gb": KnownGpu("NVIDIA A100 40GB", 40_960),
    "a40": KnownGpu("NVIDIA A40", 46_068),
    "a30": KnownGpu("NVIDIA A30", 24_576),
    "a16": KnownGpu("NVIDIA A16", 15_356),  # one of the four on a card
    "a10": KnownGpu("NVIDIA A10", 23_028),
    "a10g": KnownGpu("NVIDIA A10G", 23_028),
    "l40s": KnownGpu("NVIDIA L40S", 46_068),
    "l40": KnownGpu("NVIDIA L40", 46_068),
    "l4": KnownGpu("NVIDIA L4", 23_034),
    "t4": KnownGpu("Tesla T4", 15_360),
    "v100-32gb": KnownGpu("Tesla V100 32GB", 32_768),
    "v100-16gb": KnownGpu("Tesla V100 16GB", 16_384),
    "p100-16gb": KnownGpu("Tesla P100 16GB", 16_384),
    "p40": KnownGpu("Tesla P40", 23_040),
    # Workstations
    "rtx-pro-6000": KnownGpu("NVIDIA RTX PRO 6000 Blackwell", 97_887),
    "rtx-6000-ada": KnownGpu("NVIDIA RTX 6000 Ada Generation", 49_140),
    "rtx-5000-ada": KnownGpu("NVIDIA RTX 5000 Ada Generation", 32_760),
    "rtx-4000-ada": KnownGpu("NVIDIA RTX 4000 Ada Generation", 20_475),
    "rtx-a6000": KnownGpu("NVIDIA RTX A6000", 49_140),
    "rtx-a5000": KnownGpu("NVIDIA RTX A5000", 24_564),
    "rtx-a4000": KnownGpu("NVIDIA RTX A4000", 16_376),
    # GeForce
    "rtx-5090": KnownGpu("NVIDIA GeForce RTX 5090", 32_607),
    "rtx-5080": KnownGpu("NVIDIA GeForce RTX 5080", 16_303),
    "rtx-5070-ti": KnownGpu("NVIDIA GeForce RTX 5070 Ti", 16_303),
    "rtx-5070": KnownGpu("NVIDIA GeForce RTX 5070", 12_227),
    "rtx-5060-ti-16gb": KnownGpu("NVIDIA GeForce RTX 5060 Ti 16GB", 16_311),
    "rtx-4090": KnownGpu("NVIDIA GeForce RTX 4090", 24_564),
    "rtx-4080-super": KnownGpu("NVIDIA GeForce RTX 4080 SUPER", 16_376),
    "rtx-4080": KnownGpu("NVIDIA GeForce RTX 4080", 16_376),
    "rtx-4070-ti-super": KnownGpu("NVIDIA GeForce RTX 4070 Ti SUPER", 16_376),
    "rtx-4070-ti": KnownGpu("NVIDIA GeForce RTX 4070 Ti", 12_282),
    "rtx-4070": KnownGpu("NVIDIA GeForce RTX 4070", 12_282),
    "rtx-4060-ti-16gb": KnownGpu("NVIDIA GeForce RTX 4060 Ti 16GB", 16_380),
    "rtx-4060-ti-8gb": KnownGpu("NVIDIA GeForce RTX 4060 Ti 8GB", 8_188),
    "rtx-4060": KnownGpu("NVIDIA GeForce RTX 4060", 8_188),
    "rtx-3090-ti": KnownGpu("NVIDIA GeForce RTX 3090 Ti", 24_564),
    "rtx-3090": KnownGpu("NVIDIA GeForce RTX 3090", 24_576),
    "rtx-3080-ti": KnownGpu("NVIDIA GeForce RTX 3080 Ti", 12_288),
    "rtx-3080-10gb": KnownGpu("NVIDIA GeForce RTX 3080 10GB", 10_240),
    "rtx-3070": KnownGpu("NVIDIA GeForce RTX 3070", 8_192),
    "rtx-3060-12gb": KnownGpu("NVIDIA GeForce RTX 3060 12GB", 12_288),
    "rtx-2080-ti": KnownGpu("NVIDIA GeForce RTX 2080 Ti", 11_264),
    "gtx-1080-ti": KnownGpu("NVIDIA GeForce GTX 1080 Ti", 11_264),
    # AMD
    "mi325x": KnownGpu("AMD Instinct MI325X", 256 * GIB_IN_MIB, "rocm"),
    "mi300x": KnownGpu("AMD Instinct MI300X", 192 * GIB_IN_MIB, "rocm"),
    "mi250x": KnownGpu("AMD Instinct MI250X (one half)", 64 * GIB_IN_MIB, "rocm"),
    "mi210": KnownGpu("AMD Instinct MI210", 64 * GIB_IN_MIB, "rocm"),
    "mi100": KnownGpu("AMD Instinct MI100", 32 * GIB_IN_MIB, "rocm"),
    "pro-w7900": KnownGpu("AMD Radeon PRO W7900", 48 * GIB_IN_MIB, "rocm"),
    "pro-w6800": KnownGpu("AMD Radeon PRO W6800", 32 * GIB_IN_MIB, "rocm"),
    "rx-9070-xt": KnownGpu("AMD Radeon RX 9070 XT", 16 * GIB_IN_MIB, "rocm"),
    "rx-7900-xtx": KnownGpu("AMD Radeon RX 7900 XTX", 24 * GIB_IN_MIB, "rocm"),
    "rx-7900-xt": KnownGpu("AMD Radeon RX 7900 XT", 20 * GIB_IN_MIB, "rocm"),
    "rx-7800-xt": KnownGpu("AMD Radeon RX 7800 XT", 16 * GIB_IN_MIB, "rocm"),
    "rx-6900-xt": KnownGpu("AMD Radeon RX 6900 XT", 16 * GIB_IN_MIB, "rocm"),
    "rx-6800-xt": KnownGpu("AMD Radeon RX 6800 XT", 16 * GIB_IN_MIB, "rocm"),
    "ryzen-ai-max-128gb": KnownGpu("AMD Ryzen AI Max 128GB", 128 * GIB_IN_MIB, "vulkan", True),
    # Intel
    "arc-b580": KnownGpu("Intel Arc B580", 12 * GIB_IN_MIB, "xpu"),
    "arc-b570": KnownGpu("Intel Arc B570", 10 * GIB_IN_MIB, "xpu"),
    "arc-a770": KnownGpu("Intel Arc A770", 16 * GIB_IN_MIB, "xpu"),
    "arc-a750": KnownGpu("Intel Arc A750", 8 * GIB_IN_MIB, "xpu"),
    # Unified memory
    "gb10": KnownGpu("NVIDIA GB10 128GB", 128 * GIB_IN_MIB, "cuda", True),
    **_apple(),
}
"""By the name that is written after `--on`."""

SHORT_NAMES: Mapping[str, str] = {
    "h100": "h100-80gb",
    "a100": "a100-80gb",
    "v100": "v100-16gb",
    "p100": "p100-16gb",
    "gh200": "gh200-96gb",
    "a6000": "rtx-a6000",
    "6000-ada": "rtx-6000-ada",
    "rtx-6000-pro": "rtx-pro-6000",
    "rtx-3080": "rtx-3080-10gb",
    "rtx-3060": "rtx-3060-12gb",
    "rtx-4060-ti": "rtx-4060-ti-8gb",
    "rtx-5060-ti": "rtx-5060-ti-16gb",
    "dgx-spark": "gb10",
}
"""Other names. Where a card exists in two sizes it is the common one, of A100 the one of 80 GB."""
