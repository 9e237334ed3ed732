"""Headers of safetensors shards that need not be read, because their layers repeat others.

A model's index names every tensor and its file, but not their shapes. Where the shapes in shards that were
read depend on nothing but the name without its numbers, those of the others follow: layer 40 is like
layer 3. That is proven by the shard's size before it is believed: what the tensors take must leave
exactly room for a header. Start at `shards_to_read`, then `worked_out`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from ostler.library.safetensors import DTYPE_BITS, SafetensorsHeader, SafetensorsTensor

LEAST_ENTRY_BYTES = 40
MOST_ENTRY_BYTES = 400
"""Of one tensor in a header: name, dtype, shape and offsets."""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")

Shape = tuple[str, tuple[int, ...]]
"""A dtype with the numbers of rows, columns and so on."""


def shards_to_read(names_by_file: Mapping[str, Sequence[str]]) -> set[str]:
    """The first file with each kind of tensor: from these the shapes in all others may follow."""
    first: dict[str, str] = {}
    for file in sorted(names_by_file):
        for name in names_by_file[file]:
            first.setdefault(_pattern(name), file)
    return set(first.values())


def worked_out(
    names_by_file: Mapping[str, Sequence[str]], sizes: Mapping[str, int], read: Iterable[SafetensorsHeader]
) -> dict[str, SafetensorsHeader]:
    """The headers of those files that can be proven by their `sizes` in bytes; others are left out."""
    shapes = _shapes(read)
    found = {}
    for file, size_bytes in sizes.items():
        header = _header(names_by_file[file], size_bytes, shapes)
        if header is not None:
            found[file] = header
    return found


def _header(
    names: Sequence[str], size_bytes: int, shapes: Mapping[str, Shape | None]
) -> SafetensorsHeader | None:
    tensors, offset = [], 0
    for name in names:
        shape = shapes.get(_pattern(name))
        if shape is None:
            return None
        tensors.append(_tensor(name, shape, offset))
        offset += tensors[-1].n_bytes
    header_bytes = size_bytes - 8 - offset
    if not len(names) * LEAST_ENTRY_BYTES < header_bytes < (len(names) + 1) * MOST_ENTRY_BYTES:
        return None
    return SafetensorsHeader({}, tuple(tensors), size_bytes - offset, size_bytes)


def _tensor(name: str, shape: Shape, offset: int) -> SafetensorsTensor:
    dtype, counts = shape
    return SafetensorsTensor(name, dtype, counts, math.prod(counts) * DTYPE_BITS[dtype] // 8, offset)


def _shapes(read: Iterable[SafetensorsHeader]) -> dict[str, Shape | None]:
    """The shape by name without numbers; None where tensors of that name differ."""
    found: dict[str, Shape | None] = {}
    for header in read:
        for tensor in header.tensors:
            shape = (tensor.dtype, tensor.shape)
            pattern = _pattern(tensor.name)
            found[pattern] = shape if found.get(pattern, shape) == shape else None
    return found


def _pattern(name: str) -> str:
    return _NUMBER.sub("#", name)
