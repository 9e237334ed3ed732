"""Headers of shards that need not be read: what is proven, and what is not believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.library.repeated_shards import shards_to_read, worked_out
from ostler.library.safetensors import SafetensorsHeader, read_safetensors_header
from tests.library.gguf_files import write_safetensors

FIRST = {"embed.weight": ("BF16", (100, 64)), "layers.0.up.weight": ("BF16", (64, 512))}
SECOND = {"layers.1.up.weight": ("BF16", (64, 512)), "layers.2.up.weight": ("BF16", (64, 512))}


def written(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> SafetensorsHeader:
    return read_safetensors_header(write_safetensors(path, tensors))


def test_a_shard_that_repeats_what_was_read_is_as_if_it_were_read(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1.safetensors", FIRST), written(tmp_path / "2.safetensors", SECOND)
    names = {"1": list(FIRST), "2": list(SECOND)}
    assert shards_to_read(names) == {"1"}
    found = worked_out(names, {"2": second.size_bytes}, [first])
    assert (found["2"].tensors, found["2"].data_offset) == (second.tensors, second.data_offset)


@pytest.mark.parametrize("shape", [(64, 256), (64, 1024), (64, 0)])
def test_a_shard_of_another_size_is_not_believed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    first = written(tmp_path / "1.safetensors", FIRST)
    other = written(tmp_path / "2.safetensors", {**SECOND, "layers.2.up.weight": ("BF16", shape)})
    assert worked_out({"2": list(SECOND)}, {"2": other.size_bytes}, [first]) == {}


def test_where_tensors_of_one_kind_differ_or_are_not_known_nothing_follows(tmp_path: Path) -> None:
    odd = written(tmp_path / "1.safetensors", {**FIRST, "layers.5.up.weight": ("BF16", (64, 64))})
    size = written(tmp_path / "2.safetensors", SECOND).size_bytes
    assert worked_out({"2": list(SECOND)}, {"2": size}, [odd]) == {}
    assert worked_out({"2": list(SECOND)}, {"2": size}, []) == {}


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.text(max_size=30), max_size=5), max_size=3))
def test_the_shards_that_are_read_hold_every_kind_of_tensor(names: dict[str, list[str]]) -> None:
    read = shards_to_read(names)
    assert read <= names.keys()
    assert shards_to_read({file: names[file] for file in read}) == read
    sizes = dict.fromkeys(names, 10**6)
    assert all(not names[file] for file in worked_out(names, sizes, []))
