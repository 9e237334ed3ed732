"""Reading GGUF headers: metadata and the table of tensors, never the weights.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, counts, then
key-value pairs, then one entry for each tensor, then the data. Versions 2 and 3 are read, in both byte
orders. Vocabularies are stepped over without making a Python object of any token. Every count is checked
against the file's size and a limit before anything is built, so a hostile header costs bounded time and
memory and ends in BrokenFile.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ostler.library.byte_windows import ReadAt, Window, open_regular, reader_of
from ostler.library.errors import BrokenFile, NotAModelFile, UnsupportedFile
from ostler.library.ggml_types import GGML_TYPES, REMOVED_TYPES, TensorInfo
from ostler.library.gguf_header import ArraySummary, GgufHeader, Scalar, Value

MAGIC = b"GGUF"
MAX_KEYS = 65_536
MAX_TENSORS = 1 << 18
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 1_024
MAX_KEPT_STRING_BYTES = 1 << 20
MAX_KEPT_ELEMENTS = 1_024
MAX_KEPT_STRINGS = 256
MAX_STRING_ELEMENTS = 1 << 23
"""Strings in arrays, over the whole header: about 30 times the largest vocabularies known."""
MAX_NESTED_ARRAYS = 65_536
MAX_DEPTH = 4
MAX_KEPT_BYTES = 64 << 20
MAX_DIMENSIONS = 4
_LONGEST_ENTRY = 8 + MAX_NAME_BYTES + 4 + 8 * MAX_DIMENSIONS + 12
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20

_STRING, _ARRAY = 8, 9
_SCALARS: Mapping[int, tuple[str, str]] = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of the file at `path`.

    Raises PathNotFound, NotAModelFile (no GGUF at all), UnsupportedFile and BrokenFile.
    """
    with open_regular(path) as (descriptor, size_bytes):
        try:
            return read_gguf_header_from(reader_of(descriptor, path), size_bytes)
        except (BrokenFile, NotAModelFile, UnsupportedFile) as error:
            facts = {key: value for key, value in error.facts.items() if key != "path"}
            raise type(error)(f"{path}: {error.message}", hint=error.hint, path=str(path), **facts) from error


def read_gguf_header_from(read: ReadAt, size_bytes: int) -> GgufHeader:
    """Read a header through `read(offset, length)`, for example by HTTP range.

    `size_bytes` is the whole file's size. Raises as `read_gguf_header` does.
    """
    return GgufParser(Window(read, size_bytes)).parse()


@dataclass(slots=True)
class _Budget:
    """What may still be spent on one header."""

    strings: int = MAX_STRING_ELEMENTS
    arrays: int = MAX_NESTED_ARRAYS
    kept_bytes: int = MAX_KEPT_BYTES


class GgufParser:
    """Walks through one header that a window shows; `_at` is the position in the file.

    After `parse`, `key_spans` says where each key stands with its value: [begin, end) in bytes.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._at = 0
        self._budget = _Budget()
        self.key_spans: dict[str, tuple[int, int]] = {}
        self._order: Literal["<", ">"] = "<"
        self._u32 = struct.Struct("<I")
        self._u64 = struct.Struct("<Q")

    def parse(self) -> GgufHeader:
        """The header. Raises as `read_gguf_header` does."""
        version = self._read_version()
        n_tensors, n_keys = self._number(self._u64, "the counts"), self._number(self._u64, "the counts")
        self._check_counts(n_tensors, n_keys)
        metadata = self._read_metadata(n_keys)
        entries = self._read_tensor_entries(n_tensors)
        alignment = _alignment(metadata)
        data_offset = -(-self._at // alignment) * alignment
        tensors = _place(entries, data_offset, alignment, self._window.size_bytes)
        return GgufHeader(
            version=version,
            byte_order="little" if self._order == "<" else "big",
            metadata=metadata,
            tensors=tensors,
            data_offset=data_offset,
            size_bytes=self._window.size_bytes,
        )

    def _read_version(self) -> int:
        if self._window.size_bytes < 4 or self._window.bytes_at(0, 4, "the magic") != MAGIC:
            raise NotAModelFile("this is not a GGUF file (it does not begin with 'GGUF')")
        self._at = 4
        version = self._number(self._u32, "the version")
        if version and version & 0xFFFF == 0:
            self._order, self._u32, self._u64 = ">", struct.Struct(">I"), struct.Struct(">Q")
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version in (2, 3):
            return version
        if version == 0:
            raise BrokenFile("GGUF version 0 does not exist")
        raise UnsupportedFile(
            f"GGUF version {version} is not supported, only 2 and 3",
            hint="Convert the file again with a current llama.cpp.",
            version=version,
        )

    def _check_counts(self, n_tensors: int, n_keys: int) -> None:
        room = self._window.size_bytes
        if n_keys > min(MAX_KEYS, room // 13):
            raise BrokenFile(f"a header with {n_keys} keys cannot be right", keys=min(n_keys, 2**63 - 1))
        if n_tensors > min(MAX_TENSORS, room // 24):
            raise BrokenFile(
                f"a header with {n_tensors} tensors cannot be right", tensors=min(n_tensors, 2**63 - 1)
            )

    # metadata

    def _read_metadata(self, n_keys: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for position in range(n_keys):
            begin = self._at
            key = self._key(position)
            if key in metadata:
                raise BrokenFile(f"the key {key[:80]!r} stands twice in the header")
            kind = self._number(self._u32, key)
            if kind == _STRING:
                metadata[key] = self._string_value(key)
            elif kind == _ARRAY:
                metadata[key] = self._array(key, 1)
            else:
                metadata[key] = self._scalar(kind, key)
            self.key_spans[key] = (begin, self._at)
        return metadata

    def _scalar(self, kind: int, key: str) -> Scalar:
        _, code = _scalar_type(kind, key)
        value: Scalar = self._number(struct.Struct(self._order + code), key)
        return value

    def _string_value(self, key: str) -> Value:
        length = self._number(self._u64, key)
        if length > MAX_KEPT_STRING_BYTES:
            self._skip(length, key)
            return ArraySummary("uint8", length)
        return self._take(length, key).decode("utf-8", "replace")

    def _array(self, key: str, depth: int) -> Value:
        kind = self._number(self._u32, key)
        count = self._number(self._u64, key)
        if kind == _STRING:
            return self._strings(count, key)
        if kind == _ARRAY:
            return self._nested(count, key, depth)
        name, code = _scalar_type(kind, key)
        size = struct.calcsize("<" + code)
        if count > MAX_KEPT_ELEMENTS:
            self._skip(count * size, key)
            return ArraySummary(name, count)
        return struct.unpack(f"{self._order}{count}{code}", self._take(count * size, key))

    def _nested(self, count: int, key: str, depth: int) -> Value:
        self._budget.arrays -= count
        if depth >= MAX_DEPTH or self._budget.arrays < 0:
            raise BrokenFile(f"the arrays of {key[:80]!r} are nested too deep or too many")
        for _ in range(count):
            self._array(key, depth + 1)
        return ArraySummary("array", count)

    def _strings(self, count: int, key: str) -> Value:
        self._budget.strings -= count
        if self._budget.strings < 0 or count * 8 > self._window.size_bytes - self._at:
            raise BrokenFile(f"{key[:80]!r} has {count} strings, which cannot be right")
        if count > MAX_KEPT_STRINGS:
            self._skip_strings(count, key)
            return ArraySummary("string", count)
        begin, first = self._at, []
        for _ in range(count):
            length = self._number(self._u64, key)
            if length > MAX_KEPT_STRING_BYTES:
                self._at = begin
                self._skip_strings(count, key)
                return ArraySummary("string", count)
            first.append(self._take(length, key).decode("utf-8", "replace"))
        return tuple(first)

    def _skip_strings(self, count: int, key: str) -> None:
        """Step over `count` strings by their lengths alone: this loop is where the time goes."""
        unpack = self._u64.unpack_from
        window, at, left = self._window, self._at, count
        while left:
            index = window.ensure(at, 8, key)
            buffer, start = window.buffer, at - index
            # One lookup per string instead of a bounds check: the exception ends the window.
            done = 0
            try:
                for done in range(left):  # noqa: B007 - read after the loop
                    index += 8 + unpack(buffer, index)[0]
                done = left
            except (struct.error, OverflowError):
                pass
            left -= done
            at = start + index
            if at > window.size_bytes:
                raise BrokenFile(f"the file ends within {key[:80]!r}", size_bytes=window.size_bytes)
        self._at = at

    # tensors

    def _read_tensor_entries(self, n_tensors: int) -> list[_Entry]:
        entries: list[_Entry] = []
        names: set[str] = set()
        window, u64, u32 = self._window, self._u64.unpack_from, self._u32.unpack_from
        tails = [struct.Struct(f"{self._order}{n}QIQ") for n in range(MAX_DIMENSIONS + 1)]
        for position in range(n_tensors):
            # One look at the window for each entry: models have hundreds, libraries thousands of models.
            index = window.reach(self._at, _LONGEST_ENTRY)
            buffer, begin = window.buffer, index
            try:
                length = u64(buffer, index)[0]
                name = buffer[index + 8 : index + 8 + length]
                index += 8 + length
                dimensions = u32(buffer, index)[0]
                if not 0 < length <= MAX_NAME_BYTES or dimensions > MAX_DIMENSIONS:
                    raise BrokenFile(
                        f"tensor {position + 1} has a name of {length} bytes and {dimensions} dimensions; "
                        f"at most {MAX_NAME_BYTES} and {MAX_DIMENSIONS} exist"
                    )
                *shape, kind, offset = tails[dimensions].unpack_from(buffer, index + 4)
                text = name.decode()
            except (struct.error, OverflowError, UnicodeDecodeError):
                raise BrokenFile(f"the entry of tensor {position + 1} of {n_tensors} is damaged") from None
            self._at += index + 4 + tails[dimensions].size - begin
            if text in names:
                raise BrokenFile(f"the tensor {text[:80]!r} stands twice in the header")
            names.add(text)
            entries.append((text, tuple(shape), kind, offset))
        return entries

    # the cursor

    def _number(self, form: struct.Struct, what: str) -> int:
        index = self._window.ensure(self._at, form.size, what)
        self._at += form.size
        value: int = form.unpack_from(self._window.buffer, index)[0]
        return value

    def _key(self, position: int) -> str:
        length = self._number(self._u64, "a key")
        if not 0 < length <= MAX_KEY_BYTES:
            raise BrokenFile(f"key {position + 1} is {length} bytes long; 1 to {MAX_KEY_BYTES} are possible")
        try:
            return self._take(length, "a key").decode()
        except UnicodeDecodeError:
            raise BrokenFile(f"key {position + 1} is not valid UTF-8") from None

    def _take(self, length: int, what: str) -> bytes:
        self._budget.kept_bytes -= length
        if self._budget.kept_bytes < 0:
            raise BrokenFile(f"the header holds more than {MAX_KEPT_BYTES} bytes of text")
        taken = self._window.bytes_at(self._at, length, what)
        self._at += length
        return taken

    def _skip(self, length: int, what: str) -> None:
        self._at += length
        if self._at > self._window.size_bytes:
            self._window.ensure(self._at, 0, what[:80])


_Entry = tuple[str, tuple[int, ...], int, int]
"""Name, shape, type number and offset, as they stand in the file."""


def _scalar_type(kind: int, key: str) -> tuple[str, str]:
    found = _SCALARS.get(kind)
    if found is None:
        raise BrokenFile(f"the key {key[:80]!r} has the unknown type {kind}")
    return found


def _alignment(metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if (
        not isinstance(alignment, int)
        or isinstance(alignment, bool)
        or not 0 < alignment <= MAX_ALIGNMENT
        or alignment & (alignment - 1)
    ):
        raise BrokenFile(f"the alignment {str(alignment)[:40]} is not a power of two")
    return alignment


def _place(
    entries: list[_Entry], data_offset: int, alignment: int, size_bytes: int
) -> tuple[TensorInfo, ...]:
    """Check each tensor's type, size and place. The data may not overlap or lie outside the file."""
    tensors = []
    for name, shape, kind, offset in entries:
        row = GGML_TYPES.get(kind)
        if row is None:
            raise _unknown_type(name, kind)
        elements = math.prod(shape)
        first = shape[0] if shape else 1
        if first % row.block_elements:
            raise BrokenFile(f"rows of {name[:80]!r} ({first}) are no whole blocks of {row.name}")
        if offset % alignment:
            raise BrokenFile(f"the tensor {name[:80]!r} is not aligned to {alignment} bytes")
        n_bytes = elements // row.block_elements * row.block_bytes
        end = data_offset + offset + n_bytes
        if end > size_bytes:
            raise BrokenFile(
                f"the file is truncated: {name[:80]!r} ends at byte {end}, the file has {size_bytes}",
                needed_bytes=min(end, 2**63 - 1),
                size_bytes=size_bytes,
            )
        tensors.append(TensorInfo(name, shape, row.name, n_bytes, offset))
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.n_bytes)):
        if tensor.n_bytes and tensor.offset < end:
            raise BrokenFile(f"the tensor {tensor.name[:80]!r} overlaps another one")
        end = max(end, tensor.offset + tensor.n_bytes)
    return tuple(tensors)


def _unknown_type(name: str, kind: int) -> UnsupportedFile | BrokenFile:
    if kind in REMOVED_TYPES:
        return UnsupportedFile(
            f"the tensor {name[:80]!r} has the type {REMOVED_TYPES[kind]}, which llama.cpp no longer reads",
            hint="Fetch a newer file: Q4_0 takes the place of the interleaved types.",
        )
    if kind < 1_000:
        return UnsupportedFile(
            f"the tensor {name[:80]!r} has the type {kind}, which this version does not know",
            hint="A newer Ostler may know it; or the file is damaged.",
        )
    return BrokenFile(f"the tensor {name[:80]!r} has the impossible type {kind}")
