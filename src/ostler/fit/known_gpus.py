"""GPUs by name, with the memory that a program sees.

`mib` is the total that `nvidia-smi` shows (`memory.total`, MiB) for the card as it is delivered: on
data centre cards with GDDR memory ECC is on and takes a sixteenth. Drivers differ by a few MiB.
Source: output of `nvidia-smi` in public repositories (looked up in November 2026) for most of the cards.
For A30, A100 40GB, V100, P100, RTX 30, 20 and GTX 10 it is the size on NVIDIA's data sheet, for P40 that
size without a sixteenth, for L40 the figure of the sister card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """One kind of GPU; `mib` is its memory in MiB."""

    name: str
    mib: int

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return self.mib * MIB


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
}
"""Other names. Where a card exists in two sizes it is the common one, of A100 the one of 80 GB."""
