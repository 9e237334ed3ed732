"""Safetensors headers and folders."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from ostler.library.errors import BrokenFile, NotAModelFile, PathNotFound, UnsupportedFile
from ostler.library.hf_folder import inspect_folder
from ostler.library.safetensors import read_safetensors_header
from tests.library.gguf_files import write_safetensors, write_safetensors_header


def folder_with(folder: Path, config: dict[str, Any], **tensors: tuple[str, tuple[int, ...]]) -> Path:
    write_safetensors(folder / "model.safetensors", tensors or {"a.weight": ("BF16", (4, 4))})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_demo_folder_is_what_its_card_says(shared: Path) -> None:
    found = inspect_folder(shared / "demo-model" / "hf")
    facts = found.facts
    assert (facts.parameters, facts.quantization, facts.context_length) == (1_902_848, "F16", 1024)
    assert (facts.block_count, facts.n_heads, facts.n_kv_heads, facts.head_dim_k) == (4, 4, 2, 64)
    assert (facts.vocab_size, facts.chat_template, facts.architecture) == (1280, True, "LlamaForCausalLM")
    assert found.missing == () and found.has_tokenizer and found.has_generation_config


def test_the_language_part_of_a_vision_model_is_read_from_its_nested_configuration(tmp_path: Path) -> None:
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "vision_config": {"hidden_size": 99},
        "text_config": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 32,
                        "num_key_value_heads": 1, "max_position_embeddings": 8192, "vocab_size": 100},
    }  # fmt: skip
    facts = inspect_folder(folder_with(tmp_path, config)).facts
    assert (facts.embedding_length, facts.block_count, facts.context_length) == (64, 3, 8192)
    assert (facts.head_dim_k, facts.n_kv_heads, facts.capabilities) == (32, 1, ("vision",))


AWQ = {
    "q.qweight": ("I32", (64, 8)),
    "q.scales": ("F16", (1, 64)),
    "q.qzeros": ("I32", (1, 8)),
    "n.weight": ("F16", (64,)),
}
GPTQ = {"q.qweight": ("I32", (64, 8)), "q.g_idx": ("I32", (64,))}
FP8 = {"q.weight": ("F8_E4M3", (64, 8)), "q.weight_scale_inv": ("F32", (1, 1))}
BNB = {"q.weight": ("U8", (64, 8)), "q.weight.absmax": ("U8", (8,))}
MXFP4 = {"e_blocks": ("U8", (64, 16)), "e_scales": ("U8", (64, 1))}


@pytest.mark.parametrize(
    ("quantization", "tensors", "method", "parameters"),
    [
        ({"quant_method": "awq", "bits": 4}, AWQ, "awq", 64 * 64 + 64),
        ({"quant_method": "gptq", "bits": 8}, GPTQ, "gptq", 64 * 32),
        ({"quant_method": "fp8"}, FP8, "fp8", 64 * 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, BNB, "bitsandbytes", 64 * 16),
        ({"quant_method": "mxfp4"}, MXFP4, "mxfp4", 64 * 32),
    ],
)
def test_packed_weights_are_counted_unpacked(
    tmp_path: Path, quantization: Any, tensors: Any, method: str, parameters: int
) -> None:
    facts = inspect_folder(folder_with(tmp_path, {"quantization_config": quantization}, **tensors)).facts
    assert (facts.quantization, facts.parameters) == (method, parameters)


def test_an_index_names_the_shards_that_are_missing(tmp_path: Path) -> None:
    names = [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]
    write_safetensors(tmp_path / names[0], {"a": ("BF16", (8,))})
    write_safetensors(tmp_path / names[2], {"c": ("BF16", (8,))})
    index = {"metadata": {}, "weight_map": dict(zip("abc", names, strict=True))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    found = inspect_folder(tmp_path)
    assert (found.weights, found.missing) == ((names[0], names[2]), (names[1],))
    (tmp_path / "model.safetensors.index.json").unlink()
    assert inspect_folder(tmp_path).missing == (names[1],)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "a\\b", ""])
def test_an_index_that_points_outside_its_folder_is_broken(tmp_path: Path, name: str) -> None:
    index = {"weight_map": {"a": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BrokenFile):
        inspect_folder(tmp_path)


def test_weights_without_a_configuration_are_incomplete(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": ("F32", (2, 2))})
    assert inspect_folder(tmp_path).missing == ("config.json",)


def test_a_lora_folder_is_recognised(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "adapter_model.safetensors", {"a": ("F32", (2, 2))})
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    found = inspect_folder(tmp_path)
    assert (found.facts.kind, found.missing) == ("lora", ())


def test_texts_and_numbers_of_a_strangers_configuration_are_cleaned(tmp_path: Path) -> None:
    config = (
        '{"architectures": ["Evil\\u0000\\ud800\\u001b[31mModel"], "hidden_size": 1e99, "vocab_size": -4,'
    )
    config += '"num_hidden_layers": true, "max_position_embeddings": 99999999999999999999}'
    folder = folder_with(tmp_path, {})
    (folder / "config.json").write_text(config)
    facts = inspect_folder(folder).facts
    assert facts.architecture == "Evil [31mModel"
    assert (facts.embedding_length, facts.vocab_size, facts.block_count, facts.context_length) == (None,) * 4


def test_no_folder_and_a_folder_without_weights_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PathNotFound):
        inspect_folder(tmp_path / "none")
    with pytest.raises(NotAModelFile):
        inspect_folder(tmp_path)


def _entry(**changes: Any) -> bytes:
    return json.dumps({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]} | changes}).encode()


HOSTILE = {
    "no JSON": (b"{nonsense", 0),
    "a list": (b"[1]", 0),
    "no object inside": (b'{"a": 1}', 0),
    "negative offset": (_entry(data_offsets=[-4, 0]), 4),
    "offsets backwards": (_entry(data_offsets=[4, 0]), 4),
    "three offsets": (_entry(data_offsets=[0, 4, 4]), 4),
    "wrong size": (_entry(shape=[3]), 4),
    "huge shape": (_entry(shape=[2**62] * 16), 4),
    "shape of floats": (_entry(shape=[2.0]), 4),
    "true as a length": (_entry(shape=[True]), 4),
    "gap": (_entry(data_offsets=[4, 8]), 8),
    "truncated": (_entry(), 3),
    "too much data": (_entry(), 5),
    "metadata of numbers": (b'{"__metadata__": {"a": 1}}', 0),
    "the same name twice": (b'{"a": {"dtype":"F16","shape":[0],"data_offsets":[0,0]}, "a": 1}', 0),
    "deep nesting": (b"[" * 60_000, 0),
    "brackets only": (b'{"a":[' + b"[]," * 200_000 + b"[]]}", 0),
    "a number of a million digits": (b'{"a": ' + b"9" * 1_000_000 + b"}", 0),
}


@pytest.mark.parametrize(("header", "data"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_broken(tmp_path: Path, header: bytes, data: int) -> None:
    with pytest.raises(BrokenFile):
        read_safetensors_header(write_safetensors_header(tmp_path / "m.safetensors", header, data))


def test_a_header_of_brackets_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    header, data = HOSTILE["brackets only"]
    with pytest.raises(BrokenFile, match="nested"):
        read_safetensors_header(write_safetensors_header(tmp_path / "m.safetensors", header, data))


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 100_000_000, 93])
def test_a_length_beyond_the_file_is_broken(tmp_path: Path, length: int) -> None:
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", length) + bytes(92))
    with pytest.raises(BrokenFile):
        read_safetensors_header(tmp_path / "m.safetensors")


def test_an_unknown_dtype_is_named(tmp_path: Path) -> None:
    path = write_safetensors_header(tmp_path / "m.safetensors", _entry(dtype="F3"), 4)
    with pytest.raises(UnsupportedFile, match="F3"):
        read_safetensors_header(path)
