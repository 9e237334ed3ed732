"""llama.cpp's flat cache as a folder of the library: what is listed, found and deleted."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.library.cached_models import CachedModelNotFound, CachedModels
from ostler.library.errors import FileInUse
from ostler.library.layouts.llama_cache import flat_name, manifest_name, read_manifests
from ostler.library.service import Library
from tests.library.conftest import Place
from tests.library.gguf_files import put_in_hub_cache, write_model, write_shards

COMMIT = "c" * 40


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    return folder


@pytest.fixture
async def place(flat: Path, database: Database, events: EventLog, settings: Settings) -> Place:
    """A library with a flat cache beside the hub cache."""
    settings = settings.model_copy(update={"llama_cache_dir": flat})
    library = Library(database, events, Clock(), settings, "here")
    await library.start()
    return replace(Place(library, settings.effective_models_dir, settings.hub_cache_dir, settings))


@pytest.fixture
def cached(place: Place, events: EventLog) -> CachedModels:
    return CachedModels(place.library, events, place.settings)


def put(flat: Path, repo: str, tag: str, file: str, *, mmproj: str | None = None) -> Path:
    """A manifest of a tag; the path of the file that it means."""
    said = {"ggufFile": {"rfilename": file}}
    if mmproj:
        said["mmprojFile"] = {"rfilename": mmproj}
    (flat / manifest_name(repo, tag)).write_text(json.dumps(said))
    return flat / flat_name(repo, file)


def nobody(_path: Path) -> None:
    return None


def test_names_are_llama_cpps() -> None:
    assert flat_name("bartowski/Llama-3.2-3B-GGUF", "sub/model-Q4_K_M.gguf") == (
        "bartowski_Llama-3.2-3B-GGUF_model-Q4_K_M.gguf"
    )
    assert manifest_name("a/b", "TAG") == "manifest=a=b=TAG.json"


@pytest.mark.parametrize(
    "name",
    ["other=a=b=t.json", "manifest=a=b=t.txt", "manifest=t.json", "manifest===.json", "manifest=a==t.json"],
)
def test_what_is_no_manifest_by_its_name_is_none(name: str) -> None:
    assert read_manifests([name], lambda _: b'{"ggufFile": {"rfilename": "m.gguf"}}') == []


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b'{"ggufFile": 1}', b'{"ggufFile": {"rfilename": ".."}}',
     b'{"ggufFile": {"rfilename": "a\\u0000b"}}', b'{"ggufFile": {"rfilename": "a\\\\b"}}', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_manifest_by_its_contents_is_none(text: bytes) -> None:
    assert read_manifests(["manifest=a=b=t.json"], lambda _: text) == []


def test_a_manifest_means_all_parts_and_never_another_folder() -> None:
    text = (
        b'{"ggufFile": {"rfilename": "../../q/m-00001-of-00003.gguf"}, "mmprojFile": {"rfilename": "p.gguf"}}'
    )
    (manifest,) = read_manifests(["manifest=a=b=t.json"], lambda _: text)
    assert (manifest.repo, manifest.tag) == ("a/b", "t")
    assert manifest.files == (
        "a_b_m-00001-of-00003.gguf",
        "a_b_m-00002-of-00003.gguf",
        "a_b_m-00003-of-00003.gguf",
        "a_b_p.gguf",
    )


async def test_a_model_is_listed_by_its_manifest_with_all_parts(place: Place, flat: Path) -> None:
    first = put(flat, "org/split", "latest", "q/m-Q8_0-00001-of-00003.gguf")
    write_shards(flat, first.name.removesuffix("-00001-of-00003.gguf"), 3)
    write_model(flat / "foreign-Q8_0.gguf")
    (found,) = (await place.library.list()).items
    assert (found.repo, found.tag, found.layout) == ("org/split", "Q8_0", "llama-cache")
    assert (found.path, len(found.files), found.complete) == (first, 3, True)
    assert await place.library.find(repo="org/split") == found
    assert await place.library.find(path=first) == found


async def test_two_tags_of_one_file_are_one_file_set_and_two_cached_models(
    place: Place, cached: CachedModels, flat: Path
) -> None:
    write_model(put(flat, "org/m", "latest", "m-Q8_0.gguf"))
    put(flat, "org/m", "Q8_0", "m-Q8_0.gguf")
    assert len((await place.library.list()).items) == 1
    assert [(model.repo, model.tag) for model in await cached.list()] == [
        ("org/m", "latest"),
        ("org/m", "Q8_0"),
    ]


async def test_a_link_counts_where_it_leads_to_a_blob(
    place: Place, cached: CachedModels, flat: Path, tmp_path: Path
) -> None:
    snapshot = put_in_hub_cache(place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": write_model(tmp_path / "m")})
    put(flat, "org/m", "Q8_0", "m-Q8_0.gguf").symlink_to((snapshot / "m-Q8_0.gguf").resolve())
    elsewhere = write_model(tmp_path / "secret.gguf")
    put(flat, "org/evil", "Q8_0", "e.gguf").symlink_to(elsewhere)
    assert [item.repo for item in (await place.library.list()).items] == ["org/m"]
    assert [model.repo for model in await cached.list()] == ["org/m"]
    assert any("evil" in problem.path for problem in await place.library.problems())


async def test_what_newer_programs_keep_beside_is_listed_too(
    place: Place, cached: CachedModels, flat: Path, tmp_path: Path, manager: Principal
) -> None:
    model = write_model(tmp_path / "n-Q8_0.gguf")
    put_in_hub_cache(flat, "org/new", COMMIT, {"n-Q8_0.gguf": model})
    (found,) = (await place.library.list()).items
    assert (found.repo, found.layout, found.revision) == ("org/new", "llama-cache", COMMIT)
    await cached.delete("org/new", "Q8_0", nobody, manager)
    assert list(flat.iterdir()) == []


async def test_deleting_by_the_file_set_takes_manifests_etags_and_links(
    place: Place, flat: Path, manager: Principal
) -> None:
    model = write_model(put(flat, "org/m", "Q8_0", "m-Q8_0.gguf"))
    Path(f"{model}.etag").write_text('"x"')
    link = flat / "models--org--m" / "snapshots" / COMMIT / "m-Q8_0.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(model, link.parent))
    (flat / "models--org--m" / "refs").mkdir()
    (flat / "models--org--m" / "refs" / "main").write_text(COMMIT)
    other = write_model(put(flat, "org/other", "Q8_0", "o-Q8_0.gguf"))
    (found,) = [item for item in (await place.library.list()).items if item.repo == "org/m"]
    plan = await place.library.plan_delete(found.id, nobody)
    assert plan.freed_bytes >= model.stat().st_size
    await place.library.delete(plan, manager)
    assert sorted(path.name for path in flat.iterdir()) == [manifest_name("org/other", "Q8_0"), other.name]


async def test_a_shared_projector_and_preset_stay_until_their_last_tag_goes(
    cached: CachedModels, flat: Path, manager: Principal
) -> None:
    for tag in ("Q4_K_M", "Q8_0"):
        write_model(put(flat, "org/m", tag, f"m-{tag}.gguf", mmproj="mmproj.gguf"))
    shared = [flat / "org_m_mmproj.gguf", flat / "org_m_preset.ini"]
    for path in shared:
        path.write_bytes(b"x")
    done = await cached.delete("org/m", "Q4_K_M", nobody, manager)
    assert [path.name for path, _ in done.keep] == ["org_m_mmproj.gguf"]
    assert all(path.is_file() for path in shared) and not (flat / "org_m_m-Q4_K_M.gguf").exists()
    await cached.delete("ORG/M", "q8_0", nobody, manager)
    assert list(flat.iterdir()) == []
    with pytest.raises(CachedModelNotFound):
        await cached.delete("org/m", None, nobody, manager)


async def test_nothing_goes_while_one_of_its_names_is_used(
    place: Place, cached: CachedModels, flat: Path, tmp_path: Path, manager: Principal
) -> None:
    source = write_model(tmp_path / "m-Q8_0.gguf")
    snapshot = put_in_hub_cache(place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": source})
    model = put(flat, "org/m", "latest", "m-Q8_0.gguf")
    os.link(source, model)
    for used in (model, snapshot / "m-Q8_0.gguf"):
        with pytest.raises(FileInUse):
            await cached.delete("org/m", None, {used: "m"}.get, manager)
    assert model.is_file() and (snapshot / "m-Q8_0.gguf").is_file()
    source.unlink()
    await cached.delete("org/m", "latest", nobody, manager)
    assert not model.exists() and not (snapshot / "m-Q8_0.gguf").exists()


async def test_a_cache_that_is_not_there_is_no_root_and_not_made(
    place: Place, flat: Path, database: Database, events: EventLog
) -> None:
    shutil.rmtree(flat)
    library = Library(database, events, Clock(), place.settings, "here")
    await library.start()
    assert "llama-cache" not in [root.layout for root in await library.roots()]
    assert not flat.exists() and await CachedModels(library, events, place.settings).list() == []
