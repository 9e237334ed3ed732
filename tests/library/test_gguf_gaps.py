"""Headers read in pieces: the same as read whole, for fewer bytes, whatever the vocabulary is like."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostler.core.errors import OstlerError
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_gaps import MAX_BYTES, MAX_PIECES, read_gguf_header_in_pieces
from ostler.library.gguf_header import ArraySummary
from tests.library.gguf_files import Tensor, gguf_header, model_metadata, model_tensors, write_gguf

pytestmark = pytest.mark.real

TENSORS = [
    Tensor("token_embd.weight", (256, 512)),
    *(Tensor(f"blk.{n}.ffn_up.weight", (256, 512)) for n in range(300)),
]
Reads = list[tuple[int, int]]


def reading(path: Path) -> tuple[Callable[[int, int], bytes], Reads]:
    """A fetch of that file, and the list of what was asked."""
    reads: Reads = []

    def fetch(offset: int, length: int) -> bytes:
        reads.append((offset, length))
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return fetch, reads


def words(count: int, *, steep: float = 0.55, seed: int = 1) -> list[str]:
    """Words that get longer with the logarithm of their number, as those of byte pair encodings do."""
    chance = random.Random(seed)
    lengths = (max(1, int(chance.gauss(1 + steep * math.log(n + 1), 2))) for n in range(count))
    return ["".join(chance.choices("abcdefgh", k=length)) for length in lengths]


def vocabulary(model: str, tokens: list[str], *, scores: bool, merges: float) -> dict[str, Any]:
    """The tokenizer's part of the metadata in the order of llama.cpp's converter."""
    found: dict[str, Any] = {"tokenizer.ggml.model": model, "tokenizer.ggml.tokens": tokens}
    if scores:
        found["tokenizer.ggml.scores"] = [-float(n) for n in range(len(tokens))]
    found["tokenizer.ggml.token_type"] = [1] * len(tokens)
    if merges:
        pairs = [f"{token[: len(token) // 2]} {token[len(token) // 2 :]}" for token in tokens]
        found["tokenizer.ggml.merges"] = (pairs * 3)[: int(merges * len(pairs))]
    return found


END = {
    "tokenizer.ggml.eos_token_id": 3,
    "tokenizer.chat_template": "{{ tools }}" * 300,
    "general.file_type": 1,
}


@pytest.mark.parametrize(
    ("model", "pre", "count", "scores", "merges", "end"),
    [
        ("gpt2", "qwen2", 151_936, False, 0.99, END),
        ("gpt2", "qwen2", 151_936, False, 0.99, {}),
        ("gpt2", "llama-bpe", 128_256, False, 2.18, END),
        ("llama", "default", 32_000, True, 0, END),
        ("llama", "default", 262_144, True, 0, END),
        ("llama", "default", 150_000, False, 0, END),
        ("gemma4", None, 262_144, True, 1.96, END),
        ("t5", "default", 250_000, True, 0, END),
    ],
)
def test_a_large_vocabulary_is_stepped_over(
    tmp_path: Path,
    model: str,
    pre: str | None,
    count: int,
    scores: bool,
    merges: float,
    end: dict[str, Any],
) -> None:
    general = {k: v for k, v in model_metadata().items() if not k.startswith("tokenizer")}
    vocab = vocabulary(model, words(count), scores=scores, merges=merges)
    metadata = {**general, **({"tokenizer.ggml.pre": pre} if pre else {}), **vocab, **end}
    path = write_gguf(tmp_path / "model.gguf", metadata, TENSORS)
    fetch, reads = reading(path)
    header, whole = read_gguf_header_in_pieces(fetch, path.stat().st_size), read_gguf_header(path)
    assert (header.tensors, header.data_offset) == (whole.tensors, whole.data_offset)
    assert header.metadata["tokenizer.ggml.tokens"] == ArraySummary("string", count)
    lost = {key for key, value in whole.metadata.items() if header.metadata.get(key) != value}
    assert lost <= {f"tokenizer.ggml.{name}" for name in ("scores", "token_type", "merges")}
    assert set(header.metadata) <= set(whole.metadata)
    assert len(reads) <= MAX_PIECES and sum(length for _, length in reads) <= MAX_BYTES


def test_keys_of_an_architecture_with_a_dash_in_its_name_are_no_hindrance(tmp_path: Path) -> None:
    general = {k: v for k, v in model_metadata().items() if not k.startswith("tokenizer")}
    vocab = vocabulary("gpt2", words(201_088), scores=False, merges=2.22)
    metadata = {
        **general,
        "gpt-oss.attention.sliding_window": 128,
        "tokenizer.ggml.pre": "gpt-4o",
        **vocab,
        **END,
    }
    path = write_gguf(tmp_path / "model.gguf", metadata, TENSORS)
    fetch, reads = reading(path)
    assert read_gguf_header_in_pieces(fetch, path.stat().st_size).tensors == read_gguf_header(path).tensors
    assert len(reads) <= MAX_PIECES and sum(length for _, length in reads) <= MAX_BYTES


@pytest.mark.parametrize("odd", ["long-tail", "big-endian", "decoys"])
def test_where_the_guess_fails_the_header_is_read_all_the_same(tmp_path: Path, odd: str) -> None:
    tokens = words(60_000)
    if odd == "long-tail":
        tokens[30_000:] = ["x" * 300] * 30_000
    if odd == "decoys":
        decoy = "\x16\0\0\0\0\0\0\0tokenizer.ggml.merges\x04\0\0\0\x01\0\0\0" * 3
        tokens[30_000:] = [decoy] * 30_000
    metadata = {**model_metadata(n_tokens=5), "tokenizer.ggml.tokens": tokens, **END}
    order = ">" if odd == "big-endian" else "<"
    path = write_gguf(tmp_path / "model.gguf", metadata, TENSORS, order=order)
    fetch, _ = reading(path)
    assert read_gguf_header_in_pieces(fetch, path.stat().st_size) == read_gguf_header(path)


def test_a_small_header_is_one_piece(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", model_metadata(), model_tensors())
    fetch, reads = reading(path)
    assert read_gguf_header_in_pieces(fetch, path.stat().st_size) == read_gguf_header(path)
    assert len(reads) == 1


HEADER = gguf_header({**model_metadata(n_tokens=9_000), **END}, model_tensors())


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(HEADER) - 1), st.binary(min_size=1, max_size=9)), max_size=4
    ),
    cut=st.integers(0, len(HEADER)),
    first=st.integers(1, 100_000),
)
def test_a_damaged_header_ends_in_our_error_or_in_a_header(
    changes: list[tuple[int, bytes]], cut: int, first: int
) -> None:
    data = bytearray(HEADER)
    for at, new in changes:
        data[at : at + len(new)] = new
    if cut % 3 == 0:
        del data[cut:]
    data += bytes(60_000)
    try:
        read_gguf_header_in_pieces(lambda at, length: bytes(data[at : at + length]), len(data), first)
    except OstlerError as error:
        assert error.message
