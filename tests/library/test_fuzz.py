"""Damaged and random headers: an error of ours or an answer, never anything else, never long."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostler.core.errors import OstlerError
from ostler.library.errors import BrokenFile, NotAModelFile, UnsupportedFile
from ostler.library.gguf import read_gguf_header_from
from ostler.library.safetensors import read_safetensors_header_from
from ostler.library.summaries import gguf_facts
from tests.library.gguf_files import gguf_header, model_metadata, model_tensors

EXPECTED = (BrokenFile, NotAModelFile, UnsupportedFile)
quick = settings(
    max_examples=250, deadline=2_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL = gguf_header(model_metadata(n_tokens=20), model_tensors("Q4_K", attn_v="Q6_K"))
SIZE = len(SMALL) + 4_000_000


def read_gguf(data: bytes, size_bytes: int) -> None:
    """What is not refused must be whole: facts can be made and stored."""
    try:
        header = read_gguf_header_from(lambda offset, length: data[offset : offset + length], size_bytes)
    except EXPECTED as error:
        assert error.message
        return
    facts = gguf_facts(header)
    assert all(t.offset + header.data_offset + t.n_bytes <= size_bytes for t in header.tensors)
    assert str(facts.to_json()).encode()


mutations = st.lists(
    st.tuples(
        st.integers(0, len(SMALL) - 1),
        st.one_of(
            st.binary(min_size=1, max_size=9),
            st.sampled_from([struct.pack("<Q", n) for n in (0, 2**31, 2**32 - 1, 2**63, 2**64 - 1)]),
        ),
    ),
    min_size=1,
    max_size=4,
)


@quick
@given(mutations)
def test_a_gguf_header_with_bytes_changed(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(SMALL)
    for place, new in changes:
        data[place : place + len(new)] = new
    read_gguf(bytes(data), SIZE)


@quick
@given(st.data())
def test_the_demo_models_header_with_bytes_changed(demo_model: Path, data: st.DataObject) -> None:
    content = bytearray(demo_model.read_bytes()[:64_000])
    for place in data.draw(st.lists(st.integers(4, len(content) - 9), min_size=1, max_size=3)):
        content[place : place + 8] = data.draw(st.binary(min_size=8, max_size=8))
    read_gguf(bytes(content), demo_model.stat().st_size)


@quick
@given(st.binary(max_size=600), st.sampled_from([2, 3]), st.integers(0, 1 << 40))
def test_random_bytes_after_the_magic(rest: bytes, version: int, size_bytes: int) -> None:
    read_gguf(b"GGUF" + struct.pack("<I", version) + rest, size_bytes)


@quick
@given(st.integers(0, len(SMALL)), st.integers(0, len(SMALL)))
def test_a_gguf_header_with_a_piece_cut_out(begin: int, end: int) -> None:
    data = SMALL[:begin] + SMALL[end:]
    read_gguf(data, len(data))


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__"]), st.text(max_size=4)
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@quick
@given(json_values, st.integers(0, 2**40))
def test_random_json_as_a_safetensors_header(value: object, size_bytes: int) -> None:
    text = json.dumps(value).encode()
    data = struct.pack("<Q", len(text)) + text
    read_safetensors(data, size_bytes)


@quick
@given(st.binary(max_size=300))
def test_random_bytes_as_a_safetensors_file(data: bytes) -> None:
    read_safetensors(data, len(data))


def read_safetensors(data: bytes, size_bytes: int) -> None:
    try:
        header = read_safetensors_header_from(
            lambda offset, length: data[offset : offset + length], size_bytes
        )
    except EXPECTED as error:
        assert isinstance(error, OstlerError) and error.message
    else:
        assert header.data_offset + header.weights_bytes == size_bytes
