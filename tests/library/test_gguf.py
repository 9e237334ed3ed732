"""Reading GGUF headers, with the `gguf` package as referee."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from ostler.library.errors import BrokenFile, NotAModelFile, PathNotFound, UnsupportedFile
from ostler.library.ggml_types import FILE_TYPES, GGML_TYPES
from ostler.library.gguf import read_gguf_header, read_gguf_header_from
from ostler.library.gguf_header import ArraySummary, GgufHeader
from tests.library.gguf_files import (
    Tensor,
    Typed,
    gguf_header,
    model_metadata,
    model_tensors,
    write_gguf,
    write_lora,
    write_model,
    write_projector,
)


def assert_same_as_referee(path: Path, header: GgufHeader) -> None:
    referee = gguf.GGUFReader(path)
    seen = [(t.name, t.shape, t.ggml_type, t.n_bytes, header.data_offset + t.offset) for t in header.tensors]
    expected = [
        (t.name, tuple(t.shape.tolist()), t.tensor_type.name, int(t.n_bytes), int(t.data_offset))
        for t in referee.tensors
    ]
    assert seen == expected
    keys = [key for key in referee.fields if not key.startswith("GGUF.")]
    assert list(header.metadata) == keys
    for key in keys:
        ours, theirs = header.metadata[key], referee.fields[key].contents()
        if isinstance(ours, ArraySummary):
            assert ours.length == len(theirs), key
        else:
            assert (list(ours) if isinstance(ours, tuple) else ours) == theirs, key


def test_the_demo_model_is_read_as_the_gguf_package_reads_it(demo_model: Path) -> None:
    header = read_gguf_header(demo_model)
    assert_same_as_referee(demo_model, header)
    assert (header.architecture, header.quantization, header.parameters) == ("llama", "Q8_0", 1_902_848)
    assert (header.context_length, header.block_count, header.embedding_length) == (1024, 4, 256)
    assert (header.n_heads, header.n_kv_heads, header.head_dim_k, header.vocab_size) == (4, 2, 64, 1280)
    assert header.chat_template and "<|user|>" in header.chat_template


def test_unquantized_and_split_files_are_read_as_the_gguf_package_reads_them(shared: Path) -> None:
    paths = [*(shared / "demo-model").glob("*.gguf"), *(shared / "demo-model" / "split").glob("*.gguf")]
    assert len(paths) == 5
    for path in paths:
        assert_same_as_referee(path, read_gguf_header(path))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_are_read(tmp_path: Path, version: int, order: str) -> None:
    metadata = model_metadata(
        a__u8=Typed("uint8", 200), a__i64=Typed("int64", -5), a__f64=Typed("float64", 0.5), a__yes=True
    )
    path = write_gguf(tmp_path / "m.gguf", metadata, model_tensors("Q4_K"), version=version, order=order)
    header = read_gguf_header(path)
    assert_same_as_referee(path, header)
    assert (header.version, header.byte_order) == (version, "little" if order == "<" else "big")
    assert [header.metadata[f"a.{name}"] for name in ("u8", "i64", "f64", "yes")] == [200, -5, 0.5, True]


def test_a_file_by_the_reference_writer_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "w.gguf"), "qwen3")
    writer.add_context_length(40_960)
    writer.add_array("general.tags", ["a", "b"])
    writer.add_array("qwen3.rope.sections", [1, 2, 3])
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((8, 64), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(tmp_path / "w.gguf")
    assert header.metadata["general.tags"] == ("a", "b")
    assert header.metadata["qwen3.rope.sections"] == (1, 2, 3)
    assert (header.context_length, header.tensors[0].shape) == (40_960, (64, 8))


def test_every_tensor_and_file_type_of_the_gguf_package_is_known() -> None:
    assert {(r.number, r.name, r.block_elements, r.block_bytes) for r in GGML_TYPES.values()} == {
        (kind.value, kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType
    }
    theirs = {f.value: f.name.removeprefix("MOSTLY_").removeprefix("ALL_") for f in LlamaFileType}
    theirs.pop(LlamaFileType.GUESSED.value)
    assert {n: row.label.replace("MXFP4", "MXFP4_MOE") for n, row in FILE_TYPES.items()} == theirs


@pytest.mark.parametrize("kind", sorted(row.name for row in GGML_TYPES.values()))
def test_every_tensor_type_takes_the_bytes_that_it_should(tmp_path: Path, kind: str) -> None:
    path = write_gguf(
        tmp_path / "m.gguf", {"general.architecture": "llama"}, [Tensor("a.weight", (512, 3), kind)]
    )
    assert_same_as_referee(path, read_gguf_header(path))


def test_a_vocabulary_is_counted_and_not_kept(tmp_path: Path) -> None:
    header = read_gguf_header(write_model(tmp_path / "m.gguf", metadata=model_metadata(n_tokens=70_000)))
    assert header.metadata["tokenizer.ggml.tokens"] == ArraySummary("string", 70_000)
    assert header.metadata["tokenizer.ggml.token_type"] == ArraySummary("int32", 70_000)
    assert header.vocab_size == 70_000
    assert header.tensors[-1].name == "blk.1.ffn_down.weight"


def test_strings_across_the_edges_of_reading_windows_are_stepped_over_exactly(tmp_path: Path) -> None:
    tokens = ["x" * (n % 97) for n in range(20_000)] + ["y" * 3_000_000, ""] + ["z"] * 300
    path = write_model(tmp_path / "m.gguf", metadata=model_metadata(tokenizer__ggml__tokens=tokens))
    assert_same_as_referee(path, read_gguf_header(path))


def test_per_layer_head_counts_give_the_largest(tmp_path: Path) -> None:
    metadata = model_metadata(llama__attention__head_count_kv=[0, 8, 2])
    assert read_gguf_header(write_model(tmp_path / "m.gguf", metadata=metadata)).n_kv_heads == 8


def test_projectors_adapters_vocabularies_and_other_files_are_told_apart(tmp_path: Path) -> None:
    vocabulary = write_gguf(tmp_path / "v.gguf", model_metadata(general__type=None), [])
    matrix = write_gguf(tmp_path / "i.gguf", {"general.type": "imatrix"}, [Tensor("a", (32,), "F32")])
    old_projector = write_gguf(
        tmp_path / "c.gguf", {"general.architecture": "clip"}, [Tensor("v.a.weight", (32, 2))]
    )
    kinds = [
        read_gguf_header(path).kind
        for path in (
            write_model(tmp_path / "m.gguf"),
            write_projector(tmp_path / "p.gguf"),
            old_projector,
            write_lora(tmp_path / "l.gguf"),
            vocabulary,
            matrix,
        )
    ]
    assert kinds == ["model", "mmproj", "mmproj", "lora", "vocab", "other"]


def test_a_header_is_read_through_ranges_without_the_weights(demo_model: Path) -> None:
    data, asked = demo_model.read_bytes(), []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return data[offset : offset + length]

    header = read_gguf_header_from(read, len(data))
    assert header == read_gguf_header(demo_model)
    assert max(offset for offset, _ in asked) < header.data_offset


def test_a_missing_file_a_folder_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(PathNotFound):
        read_gguf_header(tmp_path / "none.gguf")
    for path in (tmp_path, tmp_path / "pipe.gguf"):
        with pytest.raises(NotAModelFile):
            read_gguf_header(path)


@pytest.mark.parametrize("content", [b"", b"GG", b"GGML" + bytes(100), b"<html>404</html>"])
def test_what_is_not_a_gguf_is_called_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(NotAModelFile, match=r"m\.gguf"):
        read_gguf_header(tmp_path / "m.gguf")


def test_a_file_cut_anywhere_is_broken(tmp_path: Path, demo_model: Path) -> None:
    data = demo_model.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(5, 400, 7), 5_000, 40_000, len(data) // 2, len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(BrokenFile):
            read_gguf_header(cut)


def _raw(n_tensors: int, n_keys: int, body: bytes = b"", *, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + body


def _key(name: str, kind: int, body: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + body


HUGE = 2**64 - 1
HOSTILE: dict[str, bytes] = {
    "huge tensor count": _raw(HUGE, 0) + bytes(100),
    "huge key count": _raw(0, HUGE) + bytes(100),
    "count that the file has no room for": _raw(0, 60_000) + bytes(100),
    "huge key": _raw(0, 1, struct.pack("<Q", HUGE) + bytes(50)),
    "key of no length": _raw(0, 1, struct.pack("<QI", 0, 4) + bytes(50)),
    "key that is not UTF-8": _raw(0, 1, struct.pack("<Q", 2) + b"\xff\xfe" + bytes(50)),
    "unknown value type": _raw(0, 1, _key("a", 99, bytes(50))),
    "huge string": _raw(0, 1, _key("a", 8, struct.pack("<Q", HUGE) + bytes(50))),
    "huge number array": _raw(0, 1, _key("a", 9, struct.pack("<IQ", 4, HUGE) + bytes(50))),
    "number array just too long": _raw(0, 1, _key("a", 9, struct.pack("<IQ", 4, 100_000) + bytes(50))),
    "huge string array": _raw(0, 1, _key("a", 9, struct.pack("<IQ", 8, HUGE) + bytes(50))),
    "strings that jump out": _raw(0, 1, _key("a", 9, struct.pack("<IQQ", 8, 300, HUGE) + bytes(4000))),
    "strings that jump far": _raw(0, 1, _key("a", 9, struct.pack("<IQQ", 8, 300, 2**63) + bytes(4000))),
    "last string jumps out": _raw(
        0, 1, _key("a", 9, struct.pack("<IQ", 8, 300) + bytes(299 * 8) + struct.pack("<Q", 2**40))
    ),
    "unknown array type": _raw(0, 1, _key("a", 9, struct.pack("<IQ", 77, 1) + bytes(50))),
    "huge nested array": _raw(0, 1, _key("a", 9, struct.pack("<IQ", 9, HUGE) + bytes(50))),
    "deeply nested array": _raw(0, 1, _key("a", 9, struct.pack("<IQ", 9, 1) * 2000)),
    "the same key twice": _raw(0, 2, _key("a", 0, b"\1") + _key("a", 0, b"\1")) + bytes(50),
    "alignment zero": _raw(0, 1, _key("general.alignment", 4, bytes(4))) + bytes(50),
    "alignment of no power": _raw(0, 1, _key("general.alignment", 4, struct.pack("<I", 33))) + bytes(50),
    "alignment as text": _raw(0, 1, _key("general.alignment", 8, struct.pack("<Q", 2) + b"32")) + bytes(50),
    "version zero": _raw(0, 0, version=0) + bytes(50),
    "tensor with many dimensions": _raw(1, 0, struct.pack("<Q1sI", 1, b"t", 2**31) + bytes(99)),
    "tensor of impossible type": _raw(1, 0, struct.pack("<Q1sIQIQ", 1, b"t", 1, 32, 2**31, 0) + bytes(99)),
    "tensor of no whole blocks": _raw(1, 0, struct.pack("<Q1sIQIQ", 1, b"t", 1, 33, 8, 0) + bytes(99)),
    "tensor of huge size": _raw(1, 0, struct.pack("<Q1sI4QIQ", 1, b"t", 4, *[2**63] * 4, 0, 0) + bytes(99)),
    "tensor far outside": _raw(1, 0, struct.pack("<Q1sIQIQ", 1, b"t", 1, 1, 0, 2**63) + bytes(99)),
    "tensor offset not aligned": _raw(1, 0, struct.pack("<Q1sIQIQ", 1, b"t", 1, 1, 0, 7) + bytes(99)),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(BrokenFile):
        read_gguf_header(tmp_path / "m.gguf")


def test_tensors_that_repeat_or_overlap_are_broken(tmp_path: Path) -> None:
    twice = write_gguf(tmp_path / "t.gguf", {}, [Tensor("a", (64,)), Tensor("a", (64,))])
    over = write_gguf(tmp_path / "o.gguf", {}, [Tensor("a", (64,)), Tensor("b", (64,), offset=64)])
    for path, words in ((twice, "twice"), (over, "overlaps")):
        with pytest.raises(BrokenFile, match=words):
            read_gguf_header(path)


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 100)
    with pytest.raises(BrokenFile, match="truncated") as caught:
        read_gguf_header(path)
    assert caught.value.facts["size_bytes"] == size - 100
    assert caught.value.facts["needed_bytes"] == size
    assert caught.value.facts["path"] == str(path)


@pytest.mark.parametrize(("version", "kind"), [(1, 0), (4, 0), (3, 4), (3, 31), (3, 99)])
def test_versions_and_types_that_are_not_read_are_named(tmp_path: Path, version: int, kind: int) -> None:
    entry = struct.pack("<Q1sIQIQ", 1, b"t", 1, 32, kind, 0)
    (tmp_path / "m.gguf").write_bytes(_raw(1, 0, entry + bytes(200), version=version))
    with pytest.raises(UnsupportedFile):
        read_gguf_header(tmp_path / "m.gguf")


def test_a_vast_hole_of_empty_strings_costs_little(tmp_path: Path) -> None:
    """A sparse file of 1 TB that claims as many empty strings as fit: refused by count, nothing is read."""
    head = _raw(0, 1, _key("a", 9, struct.pack("<IQ", 8, 100_000_000_000)))
    with (tmp_path / "m.gguf").open("wb") as file:
        file.write(head)
        file.truncate(1 << 40)
    with pytest.raises(BrokenFile, match="strings"):
        read_gguf_header(tmp_path / "m.gguf")


def test_a_header_does_not_go_on_behind_a_vast_array(tmp_path: Path) -> None:
    """Keys that lie gigabytes into the file are valid by the letter; no file that means well has them."""
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(_raw(0, 2, _key("a", 9, struct.pack("<IQ", 0, 1 << 30))))
        file.seek(1 << 30, os.SEEK_CUR)
        file.write(_key("b", 0, b"\1"))
    with pytest.raises(BrokenFile, match="header of more than"):
        read_gguf_header(path)


MEASURE_MEMORY = """
import resource, sys
from pathlib import Path
from ostler.library.errors import BrokenFile
from ostler.library.gguf import read_gguf_header
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
try:
    read_gguf_header(Path(sys.argv[1]))
except BrokenFile as error:
    print("broken", error.message[-200:])
"""


@pytest.mark.parametrize("what", ["strings", "keys", "numbers"])
def test_a_hostile_header_is_read_within_bounded_memory(tmp_path: Path, what: str) -> None:
    # 200 strings of 1 MiB each, 30,000 long keys, an array of 2^36 numbers in a hole of 1 TB
    text = struct.pack("<Q", 1 << 20) + bytes(1 << 20)
    bodies: dict[str, tuple[int, bytes, int]] = {
        "strings": (200, b"".join(_key(f"k{n}", 8, text) for n in range(200)), 0),
        "keys": (60_000, b"".join(_key(f"{n:04000}", 0, b"\1") for n in range(30_000)), 1 << 20),
        "numbers": (2, _key("a", 9, struct.pack("<IQ", 10, 1 << 36)), 1 << 40),
    }
    count, body, hole = bodies[what]
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(_raw(0, count, body))
        file.truncate(max(hole, len(body) + 24))
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE_MEMORY, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.startswith("broken"), ran.stderr[-2000:]


def test_a_file_that_is_truncated_while_it_is_read_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", model_metadata(n_tokens=200_000), model_tensors())
    data = path.read_bytes()
    reads = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        return data[offset : offset + length] if reads < 3 else b""

    with pytest.raises(BrokenFile, match="shorter"):
        read_gguf_header_from(read, len(data))
    assert reads == 3


def test_the_test_writer_pads_like_the_format_says() -> None:
    values: dict[str, Any] = {"a": 1}
    assert len(gguf_header(values, [], alignment=64)) % 64 == 0
