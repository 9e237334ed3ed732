"""What the new files will look like, worked out before the first byte is written.

The names, keys and limits of split files are those of llama.cpp's `llama-gguf-split`
(tools/gguf-split/gguf-split.cpp and `llama_split_path` in llama.cpp): parts are called
`NAME-00001-of-00003.gguf` and carry `split.no`, `split.count` (uint16) and `split.tensors.count` (int32);
the first has all metadata.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostler.core.errors import InvalidField
from ostler.library.byte_windows import Window, open_regular, reader_of
from ostler.library.errors import BrokenFile
from ostler.library.ggml_types import GGML_TYPES, TensorInfo
from ostler.library.gguf import DEFAULT_ALIGNMENT, GgufParser
from ostler.library.gguf_header import GgufHeader

MAX_PARTS = 999
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_UINT16, _UINT32, _INT32 = 2, 4, 5
_FORMS = {_UINT16: "H", _UINT32: "I", _INT32: "i"}
_TYPE_NUMBERS = {row.name: row.number for row in GGML_TYPES.values()}


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor's data: `n_bytes` from `begin` of `source`, to go to `at` of the new file."""

    name: str
    source: Path
    begin: int
    n_bytes: int
    at: int


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write: its header, then the pieces, with zeros between them."""

    name: str
    header: bytes
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return max([len(self.header), *(piece.at + piece.n_bytes for piece in self.pieces)])


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is read: its header, and the bytes of each metadata key with its value."""

    path: Path
    header: GgufHeader
    keys: Mapping[str, bytes]

    @property
    def alignment(self) -> int:
        """Tensors begin at multiples of so many bytes."""
        return self.header.count("general.alignment") or DEFAULT_ALIGNMENT


@dataclass(frozen=True, slots=True)
class _Chosen:
    source: Source
    tensor: TensorInfo


def read_source(path: Path) -> Source:
    """Read one GGUF's header with its metadata as bytes. Raises what reading a header raises."""
    with open_regular(path) as (descriptor, size_bytes):
        read = reader_of(descriptor, path)
        parser = GgufParser(Window(read, size_bytes))
        header = parser.parse()
        keys = {key: read(begin, end - begin) for key, (begin, end) in parser.key_spans.items()}
    return Source(path, header, keys)


def merged(parts: Sequence[Path], name: str) -> NewFile:
    """The one file that these parts make, in their order.

    Raises BrokenFile where they are no whole set, and what reading a header raises.
    """
    sources = [read_source(path) for path in parts]
    _check_set(sources)
    chosen = [_Chosen(source, tensor) for source in sources for tensor in source.header.tensors]
    first = sources[0]
    keys = [raw for key, raw in first.keys.items() if key not in SPLIT_KEYS]
    return _new_file(name, first, keys, chosen, first.alignment)


def split(path: Path, stem: str, *, max_bytes: int | None, max_tensors: int | None) -> tuple[NewFile, ...]:
    """The parts of one file, each with at most `max_bytes` of tensor data or `max_tensors` tensors.

    A tensor larger than `max_bytes` gets a part of its own. Raises InvalidField where that gives one
    part or more than 999, BrokenFile for a file that is a part itself.
    """
    source = read_source(path)
    if (source.header.split_count or 1) > 1:
        raise BrokenFile(f"{path} is one part of a model already", hint="Merge it first: ostler merge")
    shares = list(_shares(source.header.tensors, max_bytes, max_tensors))
    if not 2 <= len(shares) <= MAX_PARTS:
        raise InvalidField(
            "max_bytes" if max_bytes else "max_tensors",
            f"that makes {len(shares)} part{'s' if len(shares) != 1 else ''}; 2 to {MAX_PARTS} are possible",
            hint="Choose another size: the model has "
            f"{len(source.header.tensors)} tensors and {source.header.weights_bytes} bytes of them.",
        )
    return tuple(
        _part(source, share, number, len(shares), f"{stem}-{number + 1:05}-of-{len(shares):05}.gguf")
        for number, share in enumerate(shares)
    )


def _shares(
    tensors: Sequence[TensorInfo], max_bytes: int | None, max_tensors: int | None
) -> list[list[TensorInfo]]:
    shares: list[list[TensorInfo]] = []
    held = 0
    for tensor in tensors:
        is_full = (max_bytes is not None and held + tensor.n_bytes > max_bytes) or (
            max_tensors is not None and bool(shares) and len(shares[-1]) >= max_tensors
        )
        if not shares or (is_full and shares[-1]):
            shares.append([])
            held = 0
        shares[-1].append(tensor)
        held += tensor.n_bytes
    return shares


def _part(source: Source, tensors: Sequence[TensorInfo], number: int, count: int, name: str) -> NewFile:
    order = _order(source.header)
    keys = [raw for key, raw in source.keys.items() if number == 0 and key not in SPLIT_KEYS]
    if number and source.alignment != DEFAULT_ALIGNMENT:
        keys.append(_number(order, "general.alignment", _UINT32, source.alignment))
    keys += [
        _number(order, "split.no", _UINT16, number),
        _number(order, "split.count", _UINT16, count),
        _number(order, "split.tensors.count", _INT32, len(source.header.tensors)),
    ]
    return _new_file(name, source, keys, [_Chosen(source, tensor) for tensor in tensors], source.alignment)


def _new_file(
    name: str, first: Source, keys: Sequence[bytes], chosen: Sequence[_Chosen], alignment: int
) -> NewFile:
    order = _order(first.header)
    offset, offsets = 0, []
    for one in chosen:
        offsets.append(offset)
        offset += _aligned(one.tensor.n_bytes, alignment)
    entries = [_entry(order, one.tensor, at) for one, at in zip(chosen, offsets, strict=True)]
    head = b"GGUF" + struct.pack(f"{order}IQQ", first.header.version, len(chosen), len(keys))
    header = b"".join([head, *keys, *entries])
    header += bytes(_aligned(len(header), alignment) - len(header))
    pieces = tuple(
        Piece(
            one.tensor.name,
            one.source.path,
            one.source.header.data_offset + one.tensor.offset,
            one.tensor.n_bytes,
            len(header) + at,
        )
        for one, at in zip(chosen, offsets, strict=True)
    )
    return NewFile(name, header, pieces)


def _check_set(sources: Sequence[Source]) -> None:
    """One whole model, in order. Raises BrokenFile."""
    first = sources[0].header
    count = first.split_count or 1
    for number, source in enumerate(sources):
        header = source.header
        if header.split_count != count or header.split_no != number or len(sources) != count:
            raise BrokenFile(
                f"{source.path} does not say that it is part {number + 1} of {len(sources)}",
                hint="A model's parts must be whole, of one model, and keep their names.",
            )
        if (header.version, header.byte_order) != (first.version, first.byte_order):
            raise BrokenFile(f"{source.path} is of another version or byte order than the first part")
    names = [tensor.name for source in sources for tensor in source.header.tensors]
    twice = (
        next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
    )
    if twice is not None:
        raise BrokenFile(f"the tensor {twice[:80]!r} stands in two of the parts")
    if first.split_tensors is not None and first.split_tensors != len(names):
        raise BrokenFile(f"the parts hold {len(names)} tensors, the model has {first.split_tensors}")


def _entry(order: str, tensor: TensorInfo, offset: int) -> bytes:
    """A row of the table of tensors (gguf.md, `gguf_tensor_info_t`)."""
    name = tensor.name.encode()
    form = f"{order}Q{len(name)}sI{len(tensor.shape)}QIQ"
    kind = _TYPE_NUMBERS[tensor.ggml_type]
    return struct.pack(form, len(name), name, len(tensor.shape), *tensor.shape, kind, offset)


def _number(order: str, key: str, kind: int, value: int) -> bytes:
    """A metadata key with a number (gguf.md, `gguf_metadata_kv_t`)."""
    name = key.encode()
    return struct.pack(f"{order}Q{len(name)}sI{_FORMS[kind]}", len(name), name, kind, value)


def _order(header: GgufHeader) -> str:
    return "<" if header.byte_order == "little" else ">"


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
