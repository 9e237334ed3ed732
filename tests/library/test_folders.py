"""Looking into one folder: sub-folders, and every model in it and below it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ostler.library.errors import OutsideRoots, PathNotFound
from ostler.library.tokenizer_hints import HINTS, tokenizer_hint
from tests.library.conftest import Place
from tests.library.gguf_files import (
    model_metadata,
    put_in_hub_cache,
    write_model,
    write_projector,
    write_safetensors,
    write_shards,
)


async def test_the_folders_directly_in_a_folder_are_named(place: Place, tmp_path: Path) -> None:
    for name in ("b", "a/deep", ".hidden"):
        (place.models / name).mkdir(parents=True)
    (place.models / "file.gguf").write_bytes(b"")
    outside = tmp_path / "outside"
    outside.mkdir()
    (place.models / "out").symlink_to(outside)
    (place.models / "in").symlink_to(place.models / "a")
    found = await place.library.subfolders(place.models)
    assert [(folder.name, folder.path) for folder in found] == [
        ("a", place.models / "a"),
        ("b", place.models / "b"),
        ("in", place.models / "in"),
    ]


async def test_nothing_outside_the_roots_is_looked_at(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (place.models / "out").symlink_to(outside)
    for path in (Path("/"), Path("/etc"), outside, place.models / "out", place.models / ".." / "outside"):
        with pytest.raises(OutsideRoots):
            await place.library.subfolders(path)
        with pytest.raises(OutsideRoots):
            await place.library.look_into(path)
    with pytest.raises(PathNotFound):
        await place.library.subfolders(place.models / "absent")


async def test_a_folder_shows_the_models_in_it_and_below_it(place: Place) -> None:
    write_model(place.models / "other.gguf", "Q8_0")
    folder = place.models / "org"
    write_model(folder / "one-Q8_0.gguf", "Q8_0")
    write_projector(folder / "mmproj-F16.gguf")
    write_shards(folder / "big", "big-F16", 2)
    (folder / "README.md").write_text("x")
    view = await place.library.look_into(folder)
    assert [item.name for item in view.file_sets] == ["big-F16", "one-Q8_0"]
    assert view.names == ("README.md", "mmproj-F16.gguf", "one-Q8_0.gguf")
    assert view.gguf_files == (
        "big/big-F16-00001-of-00002.gguf",
        "big/big-F16-00002-of-00002.gguf",
        "mmproj-F16.gguf",
        "one-Q8_0.gguf",
    )
    one = view.file_sets[1]
    assert one.mmproj == folder / "mmproj-F16.gguf"
    assert view.relative(one.path) == "one-Q8_0.gguf" and view.relative(folder) == ""


async def test_a_folder_of_the_hub_cache_is_looked_into_through_its_links(place: Place) -> None:
    blob = write_model(place.cache.parent / "blob", "Q8_0")
    put_in_hub_cache(place.cache, "org/name", "a" * 40, {"m-Q8_0.gguf": blob})
    view = await place.library.look_into(place.cache / "models--org--name")
    assert [item.tag for item in view.file_sets] == ["Q8_0"]


async def test_file_types_have_llama_cpps_names(place: Place) -> None:
    named = {**model_metadata(), "general.file_type": 7, "general.quantization_version": 2}
    write_model(place.models / "m.gguf", "Q8_0", metadata=named)
    view = await place.library.look_into(place.models)
    details = view.gguf[view.file_sets[0].id]
    assert (details.file_type, details.file_type_name, details.quantization_version) == (7, "Q8_0", 2)


async def test_nested_and_broken_configurations_are_read(place: Place) -> None:
    nested = {"model_type": "gemma3", "text_config": {"dtype": "bfloat16", "tie_word_embeddings": True}}
    write_safetensors(place.models / "a" / "model.safetensors", {"a": ("BF16", (8, 8))})
    (place.models / "a" / "config.json").write_text(json.dumps(nested))
    write_safetensors(place.models / "b" / "model.safetensors", {"a": ("BF16", (8, 8))})
    (place.models / "b" / "config.json").write_text("{")
    config = (await place.library.look_into(place.models)).config
    good, bad = config[place.models / "a"], config[place.models / "b"]
    assert (good.model_type, good.torch_dtype, good.tie_word_embeddings) == ("gemma3", "bfloat16", True)
    assert bad.error and "not valid JSON" in bad.error


@pytest.mark.parametrize(
    ("names", "architecture", "family"),
    [
        (["Meta Llama 3.1 8B Instruct"], "llama", "Llama 3"),
        (["DeepSeek-R1-Distill-Qwen-7B"], "qwen2", "DeepSeek R1 distilled (Qwen)"),
        (["gpt_oss_20b"], None, "gpt-oss"),
        (["my-finetune"], "gemma3", "Gemma 3"),
        (["my-finetune"], "llama", None),
        ([], None, None),
    ],
)
def test_the_family_of_a_tokenizer_is_known(names: list[str], architecture: str, family: str) -> None:
    found = tokenizer_hint(names, architecture)
    assert (found.family if found else None) == family


def test_about_25_families_and_more_are_known_by_one_name_each() -> None:
    assert len(HINTS) >= 25
    assert len({hint.family for hint in HINTS}) == len(HINTS)
    assert all(repo.count("/") == 1 for hint in HINTS for repo in hint.repos)
