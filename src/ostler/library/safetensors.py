"""Reading safetensors headers, never the weights.

The format is https://huggingface.co/docs/safetensors: eight bytes of header length (little endian), a
JSON object of tensors (dtype, shape, data_offsets) with an optional `__metadata__`, then the data
without a gap. For folders of them see `hf_folder.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.library.bounded_json import parse_json_object
from ostler.library.byte_windows import ReadAt, open_regular, reader_of
from ostler.library.errors import BrokenFile, UnsupportedFile

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_DIMENSIONS = 16
MAX_TENSORS = 1 << 18

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element (`Dtype::bitsize` in the safetensors crate)."""


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """One tensor; `offset` counts from the data's begin."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it holds (packed ones count as their container)."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """One file's header."""

    metadata: Mapping[str, str]
    tensors: tuple[SafetensorsTensor, ...]
    data_offset: int
    size_bytes: int

    @property
    def parameters(self) -> int:
        """Elements of all tensors of this file."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weights_bytes(self) -> int:
        """Bytes of tensor data."""
        return sum(tensor.n_bytes for tensor in self.tensors)


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read the header of the file at `path`.

    Raises PathNotFound, NotAModelFile (not a regular file), UnsupportedFile and BrokenFile.
    """
    with open_regular(path) as (descriptor, size_bytes):
        try:
            return read_safetensors_header_from(reader_of(descriptor, path), size_bytes)
        except (BrokenFile, UnsupportedFile) as error:
            facts = {key: value for key, value in error.facts.items() if key != "path"}
            raise type(error)(f"{path}: {error.message}", hint=error.hint, path=str(path), **facts) from error


def read_safetensors_header_from(read: ReadAt, size_bytes: int) -> SafetensorsHeader:
    """Read a header through `read(offset, length)`; `size_bytes` is the whole file's size."""
    prefix = read(0, 8)
    if len(prefix) < 8:
        raise BrokenFile("the file is too short for a safetensors header")
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER_BYTES, size_bytes - 8):
        raise BrokenFile(
            f"a safetensors header of {length} bytes cannot be right in a file of {size_bytes} bytes",
            size_bytes=size_bytes,
        )
    text = read(8, length)
    if len(text) < length:
        raise BrokenFile("the file became shorter while it was read")
    entries = parse_json_object(text, "the safetensors header")
    metadata = _metadata(entries.pop("__metadata__", {}))
    if len(entries) > MAX_TENSORS:
        raise BrokenFile(f"a header with {len(entries)} tensors cannot be right")
    tensors = tuple(_tensor(name, entry) for name, entry in entries.items())
    _check_places(tensors, size_bytes - 8 - length)
    return SafetensorsHeader(metadata, tensors, 8 + length, size_bytes)


def _metadata(found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BrokenFile("the header's __metadata__ is not a map of texts")
    return found


def _tensor(name: str, entry: Any) -> SafetensorsTensor:
    shown = name[:80]
    if not isinstance(entry, dict):
        raise BrokenFile(f"the entry of {shown!r} is not an object")
    dtype, shape, offsets = (
        entry.get("dtype"),
        _counts(entry.get("shape")),
        _counts(entry.get("data_offsets")),
    )
    if not isinstance(dtype, str) or shape is None or offsets is None:
        raise BrokenFile(f"the entry of {shown!r} lacks a dtype, a shape or its offsets")
    if len(shape) > MAX_DIMENSIONS or len(offsets) != 2:
        raise BrokenFile(f"the entry of {shown!r} has an impossible shape or offsets")
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise UnsupportedFile(
            f"the tensor {shown!r} has the dtype {dtype[:40]!r}, which this version does not know",
            hint="A newer Ostler may know it; or the file is damaged.",
        )
    begin, end = offsets
    if (math.prod(shape) * bits) % 8 or math.prod(shape) * bits // 8 != end - begin:
        raise BrokenFile(f"the tensor {shown!r} has {end - begin} bytes, its shape needs another number")
    return SafetensorsTensor(name, dtype, tuple(shape), end - begin, begin)


def _counts(found: Any) -> list[int] | None:
    valid = isinstance(found, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in found)
    return found if valid else None


def _check_places(tensors: tuple[SafetensorsTensor, ...], data_bytes: int) -> None:
    """The data covers the rest of the file without a gap or an overlap."""
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.n_bytes)):
        if tensor.offset != end:
            raise BrokenFile(f"the tensor {tensor.name[:80]!r} overlaps another one or leaves a gap")
        end += tensor.n_bytes
    if end > data_bytes:
        raise BrokenFile(
            f"the file is truncated: the tensors need {end} bytes, {data_bytes} are there",
            needed_bytes=end,
            size_bytes=data_bytes,
        )
    if end < data_bytes:
        raise BrokenFile(f"{data_bytes - end} bytes after the last tensor belong to none")
