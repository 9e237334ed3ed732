"""GGML's tensor types and llama.cpp's file types, as tables.

Numbers, block lengths and block sizes are those of `ggml_type` in ggml.h and of `GGML_QUANT_SIZES` in
the `gguf` package; file types are `llama_ftype` in llama.h. A test compares both with the package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GgmlType:
    """One way to store numbers: blocks of `block_elements` elements in `block_bytes` bytes."""

    number: int
    name: str
    block_elements: int
    block_bytes: int


GGML_TYPES: dict[int, GgmlType] = {
    row.number: row
    for row in (
        GgmlType(0, "F32", 1, 4),
        GgmlType(1, "F16", 1, 2),
        GgmlType(2, "Q4_0", 32, 18),
        GgmlType(3, "Q4_1", 32, 20),
        GgmlType(6, "Q5_0", 32, 22),
        GgmlType(7, "Q5_1", 32, 24),
        GgmlType(8, "Q8_0", 32, 34),
        GgmlType(9, "Q8_1", 32, 40),
        GgmlType(10, "Q2_K", 256, 84),
        GgmlType(11, "Q3_K", 256, 110),
        GgmlType(12, "Q4_K", 256, 144),
        GgmlType(13, "Q5_K", 256, 176),
        GgmlType(14, "Q6_K", 256, 210),
        GgmlType(15, "Q8_K", 256, 292),
        GgmlType(16, "IQ2_XXS", 256, 66),
        GgmlType(17, "IQ2_XS", 256, 74),
        GgmlType(18, "IQ3_XXS", 256, 98),
        GgmlType(19, "IQ1_S", 256, 50),
        GgmlType(20, "IQ4_NL", 32, 18),
        GgmlType(21, "IQ3_S", 256, 110),
        GgmlType(22, "IQ2_S", 256, 82),
        GgmlType(23, "IQ4_XS", 256, 136),
        GgmlType(24, "I8", 1, 1),
        GgmlType(25, "I16", 1, 2),
        GgmlType(26, "I32", 1, 4),
        GgmlType(27, "I64", 1, 8),
        GgmlType(28, "F64", 1, 8),
        GgmlType(29, "IQ1_M", 256, 56),
        GgmlType(30, "BF16", 1, 2),
        GgmlType(34, "TQ1_0", 256, 54),
        GgmlType(35, "TQ2_0", 256, 66),
        GgmlType(39, "MXFP4", 32, 17),
        GgmlType(40, "NVFP4", 64, 36),
        GgmlType(41, "Q1_0", 128, 18),
    )
}

REMOVED_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
"""Types that llama.cpp once wrote and no longer reads."""


@dataclass(frozen=True, slots=True)
class FileType:
    """One of llama.cpp's recipes for quantizing; `main_types` are those that can hold most weights."""

    number: int
    label: str
    main_types: tuple[str, ...]


FILE_TYPES: dict[int, FileType] = {
    row.number: row
    for row in (
        FileType(0, "F32", ("F32",)),
        FileType(1, "F16", ("F16",)),
        FileType(2, "Q4_0", ("Q4_0",)),
        FileType(3, "Q4_1", ("Q4_1",)),
        FileType(7, "Q8_0", ("Q8_0",)),
        FileType(8, "Q5_0", ("Q5_0",)),
        FileType(9, "Q5_1", ("Q5_1",)),
        FileType(10, "Q2_K", ("Q2_K", "Q3_K")),
        FileType(11, "Q3_K_S", ("Q3_K",)),
        FileType(12, "Q3_K_M", ("Q3_K", "Q4_K")),
        FileType(13, "Q3_K_L", ("Q3_K", "Q5_K")),
        FileType(14, "Q4_K_S", ("Q4_K",)),
        FileType(15, "Q4_K_M", ("Q4_K",)),
        FileType(16, "Q5_K_S", ("Q5_K",)),
        FileType(17, "Q5_K_M", ("Q5_K",)),
        FileType(18, "Q6_K", ("Q6_K",)),
        FileType(19, "IQ2_XXS", ("IQ2_XXS",)),
        FileType(20, "IQ2_XS", ("IQ2_XS",)),
        FileType(21, "Q2_K_S", ("Q2_K",)),
        FileType(22, "IQ3_XS", ("IQ3_S", "IQ3_XXS")),
        FileType(23, "IQ3_XXS", ("IQ3_XXS",)),
        FileType(24, "IQ1_S", ("IQ1_S",)),
        FileType(25, "IQ4_NL", ("IQ4_NL",)),
        FileType(26, "IQ3_S", ("IQ3_S",)),
        FileType(27, "IQ3_M", ("IQ3_S",)),
        FileType(28, "IQ2_S", ("IQ2_XS", "IQ2_S")),
        FileType(29, "IQ2_M", ("IQ2_S",)),
        FileType(30, "IQ4_XS", ("IQ4_XS",)),
        FileType(31, "IQ1_M", ("IQ1_M",)),
        FileType(32, "BF16", ("BF16",)),
        FileType(36, "TQ1_0", ("TQ1_0",)),
        FileType(37, "TQ2_0", ("TQ2_0",)),
        FileType(38, "MXFP4", ("MXFP4",)),
        FileType(39, "NVFP4", ("NVFP4",)),
        FileType(40, "Q1_0", ("Q1_0",)),
    )
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. `shape` has the length of a row first; `offset` counts from the data's begin."""

    name: str
    shape: tuple[int, ...]
    ggml_type: str
    n_bytes: int
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)
