"""From a source to its files, and inspecting any path."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ostler.library.errors import BrokenFile, NotAModelFile, PathNotFound, UnsupportedFile
from tests.library.conftest import Place
from tests.library.gguf_files import (
    gguf_header,
    put_in_hub_cache,
    write_model,
    write_projector,
    write_safetensors,
    write_shards,
)

COMMIT, OTHER = "a" * 40, "b" * 40


async def test_a_file_a_shard_and_a_folder_find_their_set(place: Place) -> None:
    one = write_model(place.models / "deep" / "one.gguf")
    shards = write_shards(place.models / "big", "big", 3)
    write_safetensors(place.models / "st" / "model.safetensors", {"a": ("F16", (2, 2))})
    (place.models / "st" / "config.json").write_text("{}")
    find = place.library.find
    for path, expected in (
        (one, one),
        (one.parent, one),
        (shards[2], shards[0]),
        (place.models / "st", place.models / "st"),
        (place.models / "st" / "model.safetensors", place.models / "st"),
        (place.models / "deep" / ".." / "deep" / "one.gguf", one),
    ):
        found = await find(path=path)
        assert found is not None and found.path == expected, path
        assert await place.library.get(found.id) == found
    for path in (place.models / "none.gguf", place.models.parent, Path("/nowhere/x.gguf"), place.models):
        assert await find(path=path) is None


async def test_a_path_through_a_link_finds_the_same_set(place: Place, tmp_path: Path) -> None:
    model = write_model(place.models / "m.gguf")
    (tmp_path / "short").symlink_to(place.models)
    found = await place.library.find(path=tmp_path / "short" / "m.gguf")
    assert found is not None and found.path == model


async def test_a_repo_is_found_by_tag_file_and_revision(place: Place, tmp_path: Path) -> None:
    models = {
        f"m-{tag}.gguf": write_model(tmp_path / f"m-{tag}.gguf", main)
        for tag, main in (("Q8_0", "Q8_0"), ("Q4_K_M", "Q4_K"), ("UD-Q2_K_XL", "Q2_K"))
    }
    snapshot = put_in_hub_cache(place.cache, "Org/M-GGUF", COMMIT, models, refs=["main", "v1"])
    older = put_in_hub_cache(
        place.cache, "Org/M-GGUF", OTHER, {"m-Q8_0.gguf": models["m-Q8_0.gguf"]}, refs=["old"]
    )
    cases: tuple[tuple[dict[str, str], Path | None], ...] = (
        ({}, snapshot / "m-Q4_K_M.gguf"),
        ({"tag": "latest"}, snapshot / "m-Q4_K_M.gguf"),
        ({"tag": "q8_0"}, snapshot / "m-Q8_0.gguf"),
        ({"tag": "Q2_K_XL"}, snapshot / "m-UD-Q2_K_XL.gguf"),
        ({"file": "m-Q8_0.gguf"}, snapshot / "m-Q8_0.gguf"),
        ({"revision": "old"}, older / "m-Q8_0.gguf"),
        ({"revision": OTHER[:8], "tag": "Q8_0"}, older / "m-Q8_0.gguf"),
        ({"revision": "v1", "tag": "Q8_0"}, snapshot / "m-Q8_0.gguf"),
        ({"tag": "Q6_K"}, None),
        ({"file": "8_0.gguf"}, None),
        ({"revision": "old", "tag": "Q4_K_M"}, None),
        ({"revision": OTHER[:3]}, None),
    )
    for asked, expected in cases:
        found = await place.library.find(
            repo="org/m-gguf",
            file=asked.get("file"),
            tag=asked.get("tag"),
            revision=asked.get("revision"),
        )
        assert (found.path if found else None) == expected, asked
    assert await place.library.find(repo="org/other") is None


async def test_a_repo_without_main_gives_its_newest_snapshot(place: Place, tmp_path: Path) -> None:
    for commit, age in ((COMMIT, 1000), (OTHER, 10)):
        source = write_model(tmp_path / f"{commit[0]}-Q8_0.gguf", "Q8_0")
        os.utime(source, (time.time() - age,) * 2)
        put_in_hub_cache(place.cache, "org/m", commit, {"m-Q8_0.gguf": source}, refs=[])
    found = await place.library.find(repo="org/m")
    assert found is not None and found.revision == OTHER


async def test_a_complete_set_comes_before_an_incomplete_one(place: Place, tmp_path: Path) -> None:
    shards = write_shards(tmp_path, "m-Q4_K_M", 2)
    whole = write_model(tmp_path / "m-Q8_0.gguf", "Q8_0")
    put_in_hub_cache(place.cache, "org/m", COMMIT, {shards[0].name: shards[0], whole.name: whole})
    found = await place.library.find(repo="org/m")
    assert found is not None and found.tag == "Q8_0"
    found = await place.library.find(repo="org/m", tag="Q4_K_M")
    assert found is not None and found.missing == (shards[1].name,)


async def test_any_path_is_inspected_also_outside_the_roots(place: Place, tmp_path: Path) -> None:
    model = write_model(tmp_path / "elsewhere" / "m-Q8_0.gguf", "Q8_0")
    projector = write_projector(tmp_path / "elsewhere" / "mmproj.gguf")
    found = await place.library.inspect(model)
    assert (found.root_id, found.layout, found.path, found.mmproj) == (None, None, model, projector)
    assert (await place.library.inspect(model.parent)).path == model
    blob = tmp_path / "blobs" / "0123abc"
    blob.parent.mkdir()
    model.rename(blob)
    assert (await place.library.inspect(blob)).format == "gguf"
    assert (await place.library.inspect(projector)).mmproj is None


async def test_the_demo_model_is_inspected_where_the_package_has_it(place: Place, demo_model: Path) -> None:
    found = await place.library.inspect(demo_model)
    assert found.complete and found.facts
    assert (found.facts.quantization, found.facts.capabilities) == ("Q8_0", ("chat",))


async def test_what_cannot_be_inspected_says_why(place: Place, tmp_path: Path) -> None:
    for folder in (place.models, tmp_path / "elsewhere"):
        write_model(folder / "two" / "a.gguf")
        write_model(folder / "two" / "b.gguf")
        (folder / "empty").mkdir()
        (folder / "page.gguf").write_text("<html>")
        (folder / "notes.txt").write_text("hello")
        (folder / "cut.gguf").write_bytes(gguf_header({"a": 1}, [])[:30])
        (folder / "old.gguf").write_bytes(b"GGUF\1\0\0\0" + bytes(40))
        (folder / "broken-link.gguf").symlink_to("nothing")
        os.mkfifo(folder / "pipe.gguf")
        for name, error in (
            ("none.gguf", PathNotFound),
            ("broken-link.gguf", PathNotFound),
            ("two", NotAModelFile),
            ("empty", NotAModelFile),
            ("notes.txt", NotAModelFile),
            ("page.gguf", NotAModelFile),
            ("pipe.gguf", NotAModelFile),
            ("cut.gguf", BrokenFile),
            ("old.gguf", UnsupportedFile),
        ):
            with pytest.raises(error) as caught:
                await place.library.inspect(folder / name)
            assert name in caught.value.message
            assert caught.value.hint
    for path in (Path("/x\0y"), Path("/" + "y" * 5000)):
        with pytest.raises((PathNotFound, BrokenFile)):
            await place.library.inspect(path)
