"""Writing GGUF and safetensors files for tests: small ones, odd ones and broken ones.

The writer is written from the format's description, apart from the reader, so that both can be wrong only
together. Weights are zeros; `sparse=True` leaves them as a hole in the file, so large models cost nothing.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.library.ggml_types import GGML_TYPES

BLOCKS = 2
TYPES = {row.name: row for row in GGML_TYPES.values()}
KINDS = {
    "uint8": (0, "B"), "int8": (1, "b"), "uint16": (2, "H"), "int16": (3, "h"), "uint32": (4, "I"),
    "int32": (5, "i"), "float32": (6, "f"), "bool": (7, "?"), "uint64": (10, "Q"), "int64": (11, "q"),
    "float64": (12, "d"),
}  # fmt: skip


@dataclass(frozen=True)
class Typed:
    """A value with its GGUF type named: `Typed("uint64", 7)`, `Typed("array", [...])` for nested ones."""

    kind: str
    value: Any


@dataclass(frozen=True)
class Tensor:
    """A tensor to write; `offset` overrides where the header says it lies."""

    name: str
    shape: tuple[int, ...]
    type: str = "F16"
    offset: int | None = None

    @property
    def n_bytes(self) -> int:
        row = TYPES[self.type]
        return math.prod(self.shape) // row.block_elements * row.block_bytes


def gguf_header(
    metadata: Mapping[str, Any],
    tensors: Sequence[Tensor],
    *,
    version: int = 3,
    order: str = "<",
    alignment: int = 32,
) -> bytes:
    """The bytes up to the data, padded."""
    parts = [b"GGUF", struct.pack(f"{order}IQQ", version, len(tensors), len(metadata))]
    parts += [_text(key, order) + _value(value, order) for key, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        parts.append(_text(tensor.name, order))
        parts.append(struct.pack(f"{order}I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
        where = offset if tensor.offset is None else tensor.offset
        parts.append(struct.pack(f"{order}IQ", TYPES[tensor.type].number, where))
        offset += -(-tensor.n_bytes // alignment) * alignment
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment)


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[Tensor],
    *,
    version: int = 3,
    order: str = "<",
    alignment: int = 32,
    sparse: bool = True,
) -> Path:
    """Write a whole file; gives the path back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = gguf_header(metadata, tensors, version=version, order=order, alignment=alignment)
    data = sum(-(-tensor.n_bytes // alignment) * alignment for tensor in tensors)
    with path.open("wb") as file:
        file.write(header if sparse else header + bytes(data))
        file.truncate(len(header) + data)
    return path


def model_metadata(architecture: str = "llama", *, n_tokens: int = 300, **more: Any) -> dict[str, Any]:
    """Metadata like llama.cpp's converter writes it; `more` has dotted keys with `__` for the dot."""
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": "A test model",
        f"{architecture}.context_length": 4096,
        f"{architecture}.embedding_length": 256,
        f"{architecture}.block_count": BLOCKS,
        f"{architecture}.attention.head_count": 4,
        f"{architecture}.attention.head_count_kv": 2,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{n}" for n in range(n_tokens)],
        "tokenizer.ggml.token_type": [1] * n_tokens,
        "tokenizer.ggml.merges": [f"a{n} b{n}" for n in range(n_tokens)],
    }
    metadata.update({key.replace("__", "."): value for key, value in more.items()})
    return {key: value for key, value in metadata.items() if value is not None}


def model_tensors(main: str = "F16", **types: str) -> list[Tensor]:
    """Tensors of a small llama; `types` by part: `attn_v="Q6_K"`, `ffn_down="Q6_K"`, `token_embd="Q8_0"`."""
    tensors = [Tensor("token_embd.weight", (256, 512), types.get("token_embd", main))]
    for n in range(BLOCKS):
        tensors.append(Tensor(f"blk.{n}.attn_norm.weight", (256,), "F32"))
        shapes = {
            **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (256, 256)),
            **dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), (256, 512)),
        }
        tensors += [
            Tensor(f"blk.{n}.{part}.weight", shape, types.get(part, main)) for part, shape in shapes.items()
        ]
    return tensors


def write_model(
    path: Path, main: str = "F16", *, metadata: Mapping[str, Any] | None = None, **types: str
) -> Path:
    """A small whole model."""
    tensors = model_tensors(main, **types)
    return write_gguf(path, model_metadata() if metadata is None else metadata, tensors)


def write_shards(
    folder: Path, stem: str, count: int, main: str = "Q8_0", *, claimed_tensors: int | None = None
) -> list[Path]:
    """A split model, as `llama-gguf-split` makes it: metadata in the first part, `split.*` in each."""
    tensors = model_tensors(main)
    paths = []
    for n in range(count):
        split: dict[str, Any] = {
            "split.no": Typed("uint16", n),
            "split.count": Typed("uint16", count),
            "split.tensors.count": Typed("int32", claimed_tensors or len(tensors)),
        }
        metadata = {**model_metadata(), **split} if n == 0 else split
        path = folder / f"{stem}-{n + 1:05}-of-{count:05}.gguf"
        paths.append(write_gguf(path, metadata, tensors[n::count]))
    return paths


def write_projector(path: Path, kind: str = "F16") -> Path:
    """An mmproj for images."""
    metadata = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.vision.embedding_length": 256,
    }
    return write_gguf(path, metadata, [Tensor("v.patch_embd.weight", (256, 64), kind)])


def write_lora(path: Path) -> Path:
    """An adapter."""
    metadata = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    return write_gguf(path, metadata, [Tensor("blk.0.attn_q.weight.lora_a", (256, 16), "F32")])


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A safetensors file; tensors by name: (dtype, shape). Only dtypes of whole bytes."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1, "I8": 1, "F8_E4M3": 1, "I64": 8}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return write_safetensors_header(path, json.dumps(header).encode(), end)


def write_safetensors_header(path: Path, header: bytes, data_bytes: int) -> Path:
    """A file with exactly this header, however wrong, and a hole for data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + data_bytes)
    return path


def put_in_hub_cache(
    cache: Path, repo: str, commit: str, files: Mapping[str, Path], *, refs: Sequence[str] = ("main",)
) -> Path:
    """Files as `huggingface_hub` caches them: blobs by name of the source, links, refs. Gives the snapshot.

    The same source file in two commits is one blob.
    """
    folder = cache / ("models--" + repo.replace("/", "--"))
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        blob = folder / "blobs" / f"blob-of-{source.name}"
        if not blob.exists():
            os.link(source, blob)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    for ref in refs:
        (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def _text(text: str | bytes, order: str) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(f"{order}Q", len(data)) + data


def _value(value: Any, order: str) -> bytes:
    kind, body = _typed(value, order)
    return struct.pack(f"{order}I", kind) + body


def _typed(value: Any, order: str) -> tuple[int, bytes]:
    """The type's number and the value's bytes without it."""
    if isinstance(value, Typed):
        if value.kind == "array":
            return 9, _array([_typed(item, order) for item in value.value], order)
        number, code = KINDS[value.kind]
        return number, struct.pack(order + code, value.value)
    if isinstance(value, (str, bytes)):
        return 8, _text(value, order)
    if isinstance(value, (list, tuple)):
        return 9, _array([_typed(_in_array(item), order) for item in value], order)
    kind = "bool" if isinstance(value, bool) else "uint32" if isinstance(value, int) else "float32"
    return _typed(Typed(kind, value), order)


def _in_array(item: Any) -> Any:
    return Typed("int32", item) if type(item) is int else item


def _array(items: list[tuple[int, bytes]], order: str) -> bytes:
    kind = items[0][0] if items else 8
    return struct.pack(f"{order}IQ", kind, len(items)) + b"".join(body for _, body in items)
