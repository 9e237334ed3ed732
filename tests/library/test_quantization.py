"""Quantization from tensors, tags from names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.library.gguf import read_gguf_header
from ostler.library.quantization import stem_without_tag, tag_from_name
from tests.library.gguf_files import model_metadata, write_gguf, write_model


def quantization(path: Path, main: str, file_type: int | None, **types: str) -> str | None:
    metadata = model_metadata(general__file_type=file_type)
    return read_gguf_header(
        write_model(path / "named-Q2_K.gguf", main, metadata=metadata, **types)
    ).quantization


@pytest.mark.parametrize(
    ("main", "file_type", "types", "expected"),
    [
        ("Q4_K", 15, {"attn_v": "Q6_K", "ffn_down": "Q6_K"}, "Q4_K_M"),
        ("Q4_K", None, {"attn_v": "Q6_K"}, "Q4_K_M"),
        ("Q4_K", None, {"attn_v": "Q5_K"}, "Q4_K_S"),
        ("Q4_K", 14, {"attn_v": "Q5_K"}, "Q4_K_S"),
        ("Q5_K", None, {"ffn_down": "Q6_K"}, "Q5_K_M"),
        ("Q5_K", None, {}, "Q5_K_S"),
        ("Q3_K", None, {"attn_v": "Q5_K", "attn_output": "Q4_K"}, "Q3_K_M"),
        ("Q3_K", None, {"attn_v": "Q5_K", "attn_output": "Q5_K"}, "Q3_K_L"),
        ("Q3_K", None, {}, "Q3_K_S"),
        ("Q2_K", 10, {"attn_v": "Q4_K"}, "Q2_K"),
        ("IQ3_S", 27, {"attn_v": "Q4_K"}, "IQ3_M"),
        ("IQ2_XS", 28, {}, "IQ2_S"),
        ("MXFP4", 38, {"attn_q": "BF16"}, "MXFP4"),
        ("BF16", 32, {}, "BF16"),
        ("F32", 0, {}, "F32"),
        ("Q8_0", 7, {"token_embd": "F32"}, "Q8_0"),
    ],
)
def test_quantization_is_read_from_the_tensors(
    tmp_path: Path, main: str, file_type: int | None, types: dict[str, str], expected: str
) -> None:
    assert quantization(tmp_path, main, file_type, **types) == expected


def test_a_file_type_that_contradicts_the_tensors_is_not_believed(tmp_path: Path) -> None:
    assert quantization(tmp_path, "Q8_0", 15) == "Q8_0"
    assert quantization(tmp_path, "F16", 2) == "F16"
    assert quantization(tmp_path, "Q6_K", 1024) == "Q6_K"


def test_large_embeddings_do_not_decide(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", "Q4_K", token_embd="F16", attn_v="Q6_K")
    assert read_gguf_header(path).quantization == "Q4_K_M"


def test_a_file_without_matrices_has_no_quantization(tmp_path: Path) -> None:
    assert read_gguf_header(write_gguf(tmp_path / "v.gguf", model_metadata(), [])).quantization is None


@pytest.mark.parametrize(
    ("path", "tag", "stem"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M", "Qwen3-8B"),
        ("Qwen3-8B.Q4_K_M-00001-of-00003.gguf", "Q4_K_M", "Qwen3-8B"),
        ("Q4_K_M/Qwen3-00001-of-00002.gguf", "Q4_K_M", "Qwen3"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", "Qwen3-8B"),
        ("model-f16.gguf", "F16", "model"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4", "gpt-oss-20b"),
        ("a-IQ2_XXS.gguf", "IQ2_XXS", "a"),
        ("a-Q4_0_4_8.gguf", "Q4_0_4_8", "a"),
        ("a-TQ1_0.gguf", "TQ1_0", "a"),
        ("qwen3-8b.gguf", None, "qwen3-8b"),
        ("BF16.gguf", "BF16", ""),
    ],
)
def test_the_tag_is_found_in_a_files_name(path: str, tag: str | None, stem: str) -> None:
    assert (tag_from_name(path), stem_without_tag(path)) == (tag, stem)
