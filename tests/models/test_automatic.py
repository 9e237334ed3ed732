"""Automatic models: what is in a cache is a model by its name, until somebody uses it and it is stored."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.engines.registry import default_engines
from ostler.library.service import Library
from ostler.models.automatic import AutomaticModels
from ostler.models.index import ModelNotFound
from ostler.models.records import NewModel
from ostler.models.service import Models
from ostler.models.sources import ModelFileGone, SourceReader
from tests.library.gguf_files import (
    put_in_hub_cache,
    write_lora,
    write_model,
    write_projector,
    write_safetensors,
    write_shards,
)

OLD, NEW = "a" * 40, "b" * 40


@dataclass
class Cache:
    """A hub cache, and the rooms over it; `put` writes models into it under these file names."""

    automatic: AutomaticModels
    models: Models
    library: Library
    folder: Path
    work: Path

    def put(self, repo: str, *names: str, commit: str = OLD, refs: tuple[str, ...] = ("main",)) -> None:
        files = {}
        for name in names:
            source = self.work / name.replace("/", "-")
            files[name] = source if source.exists() else write_model(source)
        put_in_hub_cache(self.folder, repo, commit, files, refs=refs)

    async def names(self, *, with_used: bool = False) -> list[str]:
        return [model.name for model in await self.automatic.list(with_used=with_used)]


@pytest.fixture
async def cache(database: Database, events: EventLog, tmp_path: Path) -> Cache:
    settings = Settings(data_dir=tmp_path / "data", hub_cache_dir=tmp_path / "hub")
    (tmp_path / "hub").mkdir()
    (tmp_path / "work").mkdir()
    clock = Clock()
    library = Library(database, events, clock, settings, "here")
    await library.start()
    engines = default_engines(settings)
    sources = SourceReader(library, settings.effective_models_dir)
    models = Models(database, events, clock, engines, sources, "here")
    await models.start()
    automatic = AutomaticModels(library, models, engines)
    return Cache(automatic, models, library, tmp_path / "hub", tmp_path / "work")


async def test_a_file_in_the_cache_is_a_model_by_its_repo_and_what_stands_last_in_its_name(
    cache: Cache,
) -> None:
    cache.put("Factory/Llama-3", "Meta-Llama-3-8B-Instruct.Q8_0.gguf")
    cache.put("google/gemma", "2b_it_v1p1.gguf")
    cache.put("microsoft/phi", "Phi-3-mini-4k-instruct-q4.gguf", "Phi-3-mini-4k-instruct-fp16.gguf")
    assert await cache.names() == [
        "Factory/Llama-3:Q8_0",
        "google/gemma:2b_it_v1p1",
        "microsoft/phi:fp16",
        "microsoft/phi:q4",
    ]
    found = await cache.automatic.find("microsoft/phi:q4")
    assert found is not None and found.engine == "llamacpp"
    assert found.file_set.path.name == "Phi-3-mini-4k-instruct-q4.gguf"


async def test_a_split_model_is_named_by_its_quantization(cache: Cache) -> None:
    parts = {part.name: part for part in write_shards(cache.work, "big-Q8_0", 3)}
    put_in_hub_cache(cache.folder, "org/big", OLD, parts)
    folder = cache.work / "other"
    folder.mkdir()
    below = {f"Q6_K/{part.name}": part for part in write_shards(folder, "huge", 2)}
    put_in_hub_cache(cache.folder, "org/huge", OLD, below)
    assert await cache.names() == ["org/big:Q8_0", "org/huge:Q6_K"]


async def test_projectors_adapters_drafts_and_half_models_are_no_models(cache: Cache) -> None:
    parts = write_shards(cache.work, "half-Q8_0", 3)[:2]
    files = {
        "model-Q4_0.gguf": write_model(cache.work / "model-Q4_0.gguf"),
        "mmproj-F16.gguf": write_projector(cache.work / "mmproj-F16.gguf"),
        "lora.gguf": write_lora(cache.work / "lora.gguf"),
        "model-draft-Q4_0.gguf": write_model(cache.work / "model-draft-Q4_0.gguf"),
        "broken.gguf": cache.work / "broken.gguf",
        **{part.name: part for part in parts},
    }
    files["broken.gguf"].write_bytes(b"GGUF" + bytes(20))
    put_in_hub_cache(cache.folder, "org/mixed", OLD, files)
    assert await cache.names() == ["org/mixed:Q4_0"]


async def test_a_safetensors_snapshot_has_its_repos_name(cache: Cache, user: Principal) -> None:
    weights = write_safetensors(cache.work / "w.safetensors", {"w": ("F16", (8, 8))})
    of_text, of_images = cache.work / "text.json", cache.work / "images.json"
    of_text.write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    of_images.write_text('{"_class_name": "UNet2DConditionModel"}')
    put_in_hub_cache(cache.folder, "org/plain", OLD, {"model.safetensors": weights, "config.json": of_text})
    images = {"unet/model.safetensors": weights, "unet/config.json": of_images}
    put_in_hub_cache(cache.folder, "org/images", OLD, images)
    assert await cache.names() == ["org/plain"]
    adopted = await cache.automatic.adopt("org/plain", user)
    assert (adopted.engine, adopted.source.label) == ("vllm", "org/plain")


async def test_two_files_that_would_have_one_name_get_two(cache: Cache) -> None:
    cache.put("org/two", "first-Q4_0.gguf", "second-Q4_0.gguf", "deep/second-Q4_0.gguf")
    os.utime(cache.work / "second-Q4_0.gguf", (1_000, 1_000))
    assert await cache.names() == ["org/two:Q4_0", "org/two:deep-second-Q4_0", "org/two:first-Q4_0"]
    kept = await cache.automatic.find("org/two:Q4_0")
    assert kept is not None and kept.file_set.path.name == "second-Q4_0.gguf", "the one that was here first"


async def test_of_several_snapshots_the_one_of_main_counts_else_the_newest(cache: Cache) -> None:
    cache.put("org/main", "m-Q4_0.gguf", commit=NEW, refs=())
    cache.put("org/main", "m-Q4_0.gguf", commit=OLD)
    found = await cache.automatic.find("org/main:Q4_0")
    assert found is not None and found.file_set.revision == OLD
    for commit, at in ((NEW, 1_000), (OLD, 2_000)):  # the greater hash is the older one
        file = write_model(cache.work / f"{commit[0]}.gguf")
        os.utime(file, (at, at))
        put_in_hub_cache(cache.folder, "org/loose", commit, {"m-Q4_0.gguf": file}, refs=())
    found = await cache.automatic.find("org/loose:Q4_0")
    assert found is not None and found.file_set.revision == OLD
    assert await cache.names() == ["org/loose:Q4_0", "org/main:Q4_0"]


async def test_one_file_in_two_caches_is_one_model(cache: Cache, admin: Principal, tmp_path: Path) -> None:
    cache.put("org/twice", "m-Q4_0.gguf")
    shutil.copytree(cache.folder, tmp_path / "second", symlinks=True)
    await cache.library.add_root(tmp_path / "second", "hub-cache", admin)
    assert await cache.names() == ["org/twice:Q4_0"]
    found = await cache.automatic.find("org/twice:Q4_0")
    assert found is not None and found.file_set.path.is_relative_to(cache.folder)


async def test_files_outside_the_caches_are_not_automatic(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "mine-Q4_0.gguf")
    assert await cache.names() == [] and (await cache.library.list()).total == 1


async def test_files_that_a_stored_model_uses_are_not_listed_but_their_name_still_works(
    cache: Cache, admin: Principal
) -> None:
    cache.put("org/used", "m-Q4_0.gguf")
    assert await cache.names() == ["org/used:Q4_0"]
    await cache.models.create(NewModel({"hub": "org/used:Q4_0"}, name="mine"), admin)
    assert await cache.names() == []
    assert await cache.names(with_used=True) == ["org/used:Q4_0"]
    found = await cache.automatic.find("org/used:Q4_0")
    assert found is not None and found.used_by == ("mine",)
    adopted = await cache.automatic.adopt("org/used:Q4_0", admin)
    assert {model.name for model in cache.models.all()} == {"mine", adopted.name}
    await cache.models.delete("mine", admin)
    assert await cache.names(with_used=True) == [], "it is stored under that very name"


async def test_a_name_that_another_model_has_is_left_to_it(cache: Cache, admin: Principal) -> None:
    cache.put("org/taken", "m-Q4_0.gguf")
    cache.put("org/else", "m-Q8_0.gguf")
    await cache.models.create(NewModel({"hub": "org/else:Q8_0"}, name="org/taken:Q4_0"), admin)
    assert await cache.names() == ["org/taken:m-Q4_0"]
    assert await cache.automatic.find("org/taken:Q4_0") is None


async def test_using_one_makes_a_stored_model_of_it_once_however_many_ask(
    cache: Cache, user: Principal, events: EventLog
) -> None:
    cache.put("org/asked", "m-Q4_0.gguf")
    made = await asyncio.gather(*(cache.automatic.adopt("org/asked:Q4_0", user) for _ in range(20)))
    assert {model.id for model in made} == {made[0].id} and len(cache.models.all()) == 1
    model = made[0]
    assert (model.name, model.origin, model.engine) == ("org/asked:Q4_0", "library", "llamacpp")
    assert model.source.label == "org/asked:m-Q4_0.gguf"
    created, _ = await events.find(kind="model.created")
    assert [event.actor for event in created] == [user.name]
    assert await cache.names() == []


async def test_a_name_that_nothing_has_cannot_be_adopted(cache: Cache, user: Principal) -> None:
    cache.put("org/here", "m-Q4_0.gguf")
    await cache.names()
    with pytest.raises(ModelNotFound) as refused:
        await cache.automatic.adopt("org/here:Q4_1", user)
    assert refused.value.facts["near"] == ["org/here:Q4_0"]
    for odd in ("", "a", "a/b/c:d", "../..:x", "a/b\0", "x" * 5_000 + "/y", "/", "org/../here:Q4_0"):
        assert await cache.automatic.find(odd) is None


async def test_a_file_that_vanished_is_said_of_its_model_and_may_come_back(
    cache: Cache, admin: Principal
) -> None:
    cache.put("org/gone", "m-Q4_0.gguf")
    model = await cache.automatic.adopt("org/gone:Q4_0", admin)
    shutil.rmtree(cache.folder / "models--org--gone")
    with pytest.raises(ModelFileGone):
        await cache.models.resolve_files(model)
    assert await cache.automatic.find("org/gone:Q4_0") is None and await cache.names() == []
    cache.put("org/gone", "m-Q4_0.gguf", commit=NEW)
    assert (await cache.models.resolve_files(model)).revision == NEW, "the same model, in the new snapshot"
    await cache.models.delete(model.id, admin)
    assert await cache.names() == ["org/gone:Q4_0"], "its files are there, so it is automatic again"
    again = await cache.automatic.adopt("org/gone:Q4_0", admin)
    assert again.id != model.id


async def test_what_other_programs_put_into_the_cache_is_seen_at_once_in_a_small_one(cache: Cache) -> None:
    assert await cache.names() == []
    cache.put("org/new", "m-Q4_0.gguf")
    assert await cache.names() == ["org/new:Q4_0"]
    shutil.rmtree(cache.folder / "models--org--new")
    assert await cache.names() == []
