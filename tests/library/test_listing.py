"""One listing over a models folder and a hub cache."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import InvalidField
from ostler.core.events import EventLog
from ostler.library.errors import FileSetNotFound
from ostler.library.filesets import FileSet
from ostler.library.service import Library
from ostler.library.tables import InspectionRow
from tests.library.conftest import Place
from tests.library.gguf_files import (
    put_in_hub_cache,
    write_lora,
    write_model,
    write_projector,
    write_safetensors,
    write_shards,
)

COMMIT, OTHER = "a" * 40, "b" * 40


async def by_name(place: Place) -> dict[str, FileSet]:
    return {item.name: item for item in (await place.library.list(limit=500)).items}


async def test_loose_files_nested_folders_shards_and_safetensors_are_listed(place: Place) -> None:
    write_model(place.models / "loose-Q8_0.gguf", "Q8_0")
    write_model(place.models / "org" / "name" / "deep.gguf", "F16")
    write_shards(place.models / "big", "big-Q8_0", 3)
    write_safetensors(place.models / "st" / "model.safetensors", {"a": ("BF16", (8, 8))})
    (place.models / "st" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (place.models / "notes.txt").write_text("not a model")
    found = await by_name(place)
    assert set(found) == {"loose-Q8_0", "deep", "big-Q8_0", "st"}
    assert all(item.complete and item.error is None and item.layout == "folder" for item in found.values())
    whole, split = found["loose-Q8_0"], found["big-Q8_0"]
    assert whole.facts and split.facts
    assert split.path.name == "big-Q8_0-00001-of-00003.gguf"
    assert (len(split.files), split.facts.quantization, split.tag) == (3, "Q8_0", "Q8_0")
    assert split.facts.parameters == whole.facts.parameters
    assert split.facts.weights_bytes == whole.facts.weights_bytes
    assert split.size_bytes == sum(file.path.stat().st_size for file in split.files)
    assert found["st"].path == place.models / "st"
    assert found["st"].format == "safetensors"


async def test_the_split_demo_model_adds_up_to_the_whole_one(place: Place, shared: Path) -> None:
    split = await place.library.inspect(shared / "demo-model/split/ostler-demo-F16-00002-of-00003.gguf")
    whole = await place.library.inspect(shared / "demo-model/ostler-demo-F16.gguf")
    assert split.facts and whole.facts and split.complete
    assert split.facts.parameters == whole.facts.parameters == 1_902_848
    assert split.facts.weights_bytes == whole.facts.weights_bytes
    assert split.path.name == "ostler-demo-F16-00001-of-00003.gguf"


async def test_a_missing_shard_is_named(place: Place) -> None:
    paths = write_shards(place.models, "m", 3)
    paths[1].unlink()
    found = (await by_name(place))["m"]
    assert (found.complete, found.missing, found.error) == (False, (paths[1].name,), None)
    paths[0].unlink()
    found = (await by_name(place))["m"]
    assert found.path == paths[0] and found.missing == (paths[0].name, paths[1].name)


async def test_shards_that_were_renamed_or_mixed_are_an_error(place: Place) -> None:
    one, two = write_shards(place.models, "swapped", 2)
    swap = one.with_suffix(".x")
    one.rename(swap), two.rename(one), swap.rename(two)
    renamed = write_shards(place.models, "r", 2)
    renamed[0].rename(place.models / "plain.gguf")
    found = await by_name(place)
    assert "part 2" in (found["swapped"].error or "")
    assert "one of 2 parts" in (found["plain"].error or "")
    assert not found["swapped"].complete


async def test_parts_that_lack_tensors_are_an_error(place: Place) -> None:
    write_shards(place.models, "m", 2, claimed_tensors=99)
    found = (await by_name(place))["m"]
    assert "the model has 99" in (found.error or "") and not found.complete


async def test_a_projector_goes_with_the_model_beside_it(place: Place) -> None:
    write_model(place.models / "seer" / "seer-Q4_K_M.gguf", "Q4_K")
    write_projector(place.models / "seer" / "mmproj-F32.gguf", "F32")
    projector = write_projector(place.models / "seer" / "mmproj-F16.gguf", "F16")
    found = await by_name(place)
    seer = found["seer-Q4_K_M"]
    assert seer.mmproj == projector
    assert seer.facts and "vision" in seer.facts.capabilities
    assert projector in {file.path for file in seer.files}
    assert set(found) == {"seer-Q4_K_M", "mmproj-F32"}
    assert found["mmproj-F32"].facts and found["mmproj-F32"].facts.kind == "mmproj"


async def test_among_several_models_a_projector_goes_by_name(place: Place) -> None:
    write_model(place.models / "alpha-Q8_0.gguf", "Q8_0")
    write_model(place.models / "beta-Q8_0.gguf", "Q8_0")
    projector = write_projector(place.models / "mmproj-alpha-F16.gguf")
    write_projector(place.models / "mmproj-F16.gguf")
    found = await by_name(place)
    assert (found["alpha-Q8_0"].mmproj, found["beta-Q8_0"].mmproj) == (projector, None)
    assert "mmproj-F16" in found


async def test_an_adapter_is_listed_as_one(place: Place) -> None:
    write_lora(place.models / "style.gguf")
    found = (await by_name(place))["style"]
    assert found.facts and found.facts.kind == "lora"


async def test_broken_files_are_listed_with_their_error_and_half_done_ones_not_at_all(place: Place) -> None:
    (place.models / "bad.gguf").write_bytes(b"GGUF" + bytes(3))
    (place.models / "page.gguf").write_bytes(b"<html>")
    write_model(place.models / ".ostler-staging" / "x" / "m.gguf")
    write_model(place.models / "m.gguf.part")
    os.mkfifo(place.models / "pipe.gguf")
    found = await by_name(place)
    assert set(found) == {"bad", "page"}
    assert all(item.error and not item.complete and item.facts is None for item in found.values())


async def test_links_inside_are_followed_and_links_out_or_in_circles_are_reported(
    place: Place, tmp_path: Path
) -> None:
    write_model(tmp_path / "elsewhere" / "secret.gguf")
    write_model(place.models / "real" / "m.gguf")
    (place.models / "again.gguf").symlink_to("real/m.gguf")
    (place.models / "a-link-to-real").symlink_to("real")
    (place.models / "real" / "up").symlink_to("..")
    (place.models / "circle").symlink_to("circle")
    (place.models / "out").symlink_to(tmp_path / "elsewhere")
    (place.models / "out.gguf").symlink_to(tmp_path / "elsewhere" / "secret.gguf")
    paths = {str(item.path.relative_to(place.models)) for item in (await by_name(place)).values()}
    assert paths == {"real/m.gguf", "again.gguf"}
    problems = {Path(problem.path).name for problem in await place.library.problems()}
    assert problems == {"circle", "out", "out.gguf"}


async def test_names_that_are_no_text_are_reported_and_do_no_harm(place: Place) -> None:
    write_model(place.models / "good.gguf")
    bad = os.fsencode(place.models) + b"/bad-\xff\xfe.gguf"
    Path(os.fsdecode(bad)).write_bytes(b"GGUF")
    (place.models / "line\nbreak.gguf").write_bytes(b"GGUF")
    assert set(await by_name(place)) == {"good"}
    assert len(await place.library.problems()) == 2


async def test_a_hub_cache_is_listed_by_repo_tag_and_revision(place: Place, tmp_path: Path) -> None:
    small = write_model(tmp_path / "m-Q4_K_M.gguf", "Q4_K", attn_v="Q6_K")
    large = write_model(tmp_path / "m-Q8_0.gguf", "Q8_0")
    files = {"m-Q4_K_M.gguf": small, "m-Q8_0.gguf": large}
    snapshot = put_in_hub_cache(place.cache, "org/m-GGUF", COMMIT, files, refs=["main", "refs/pr/1"])
    found = await by_name(place)
    assert set(found) == {"org/m-GGUF:Q4_K_M", "org/m-GGUF:Q8_0"}
    item = found["org/m-GGUF:Q4_K_M"]
    assert (item.repo, item.revision, item.tag) == ("org/m-GGUF", COMMIT, "Q4_K_M")
    assert set(item.refs) == {"main", "refs/pr/1"}
    assert item.path == snapshot / "m-Q4_K_M.gguf"
    assert item.size_bytes == small.stat().st_size


async def test_split_quantizations_in_folders_share_the_projector_of_their_repo(
    place: Place, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path, "m-Q8_0", 2)
    projector = write_projector(tmp_path / "mmproj-F16.gguf")
    files = {f"Q8_0/{shard.name}": shard for shard in shards} | {"mmproj-F16.gguf": projector}
    snapshot = put_in_hub_cache(place.cache, "org/m", COMMIT, files)
    (item,) = (await by_name(place)).values()
    assert item.name == "org/m:Q8_0"
    assert item.mmproj == snapshot / "mmproj-F16.gguf"
    assert len(item.files) == 3


async def test_links_of_a_hub_cache_lead_to_blobs_of_their_repo_only(place: Place, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.gguf")
    put_in_hub_cache(place.cache, "org/one", COMMIT, {"m.gguf": model})
    snapshot = put_in_hub_cache(place.cache, "org/two", COMMIT, {})
    snapshot.mkdir(parents=True)
    (snapshot / "out.gguf").symlink_to(model)
    (snapshot / "other.gguf").symlink_to("../../../models--org--one/blobs/blob-of-m.gguf")
    (snapshot / "gone.gguf").symlink_to("../../blobs/not-there")
    blob = snapshot.parent.parent / "blobs" / "sly"
    blob.symlink_to(model)
    (snapshot / "sly.gguf").symlink_to("../../blobs/sly")
    assert set(await by_name(place)) == {"org/one:m"}
    assert {Path(problem.path).name for problem in await place.library.problems()} == {
        "out.gguf",
        "other.gguf",
    }


async def test_what_we_read_huggingface_hub_reads_the_same(place: Place, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir

    put_in_hub_cache(
        place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": write_model(tmp_path / "m-Q8_0.gguf", "Q8_0")}
    )
    (item,) = (await by_name(place)).values()
    (repo,) = (await asyncio.to_thread(scan_cache_dir, place.cache)).repos
    (revision,) = repo.revisions
    assert (item.repo, item.revision) == (repo.repo_id, revision.commit_hash)
    assert set(item.refs) == set(revision.refs)
    assert {file.path for file in item.files} == {file.file_path for file in revision.files}
    assert item.size_bytes == repo.size_on_disk


async def test_the_listing_is_filtered_sorted_and_paged(place: Place, tmp_path: Path) -> None:
    for number in range(5):
        write_model(place.models / f"m{number}.gguf", "Q8_0" if number % 2 else "F16")
    put_in_hub_cache(
        place.cache, "org/hub", COMMIT, {"h-Q8_0.gguf": write_model(tmp_path / "h.gguf", "Q8_0")}
    )
    library = place.library
    page = await library.list(limit=2, offset=1)
    assert ([item.name for item in page.items], page.total) == (["m1", "m2"], 6)
    descending = await library.list(sort="name", descending=True)
    assert [item.name for item in descending.items] == ["org/hub:Q8_0", "m4", "m3", "m2", "m1", "m0"]
    sizes = [item.size_bytes for item in (await library.list(sort="size", descending=True)).items]
    assert sizes == sorted(sizes, reverse=True)
    assert [item.name for item in (await library.list(search="HUB q8")).items] == ["org/hub:Q8_0"]
    assert (await library.list(repo="ORG/hub")).total == 1
    assert (await library.list(layout="folder")).total == 5
    assert (await library.list(format="safetensors")).total == 0
    with pytest.raises(InvalidField) as caught:
        await library.list(sort="nmae")
    assert "name" in (caught.value.hint or "")


async def test_a_listing_shows_the_disk_as_it_is_now(place: Place) -> None:
    path = write_model(place.models / "m.gguf", "Q8_0")
    before = (await by_name(place))["m"]
    assert await place.library.get(before.id) == before
    write_model(path, "F16")
    after = (await by_name(place))["m"]
    assert after.id == before.id
    assert after.facts and after.facts.quantization == "F16"
    path.unlink()
    assert await by_name(place) == {}
    with pytest.raises(FileSetNotFound):
        await place.library.get(before.id)


async def test_headers_are_read_once_also_over_a_restart(
    place: Place, database: Database, events: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(place.models / "m.gguf", "Q8_0")
    write_safetensors(place.models / "st" / "model.safetensors", {"a": ("BF16", (8, 8))})
    (place.models / "st" / "config.json").write_text(json.dumps({"hidden_size": 64}))
    (place.models / "bad.gguf").write_bytes(b"GGUF")
    before = await by_name(place)
    again = Library(database, events, Clock(), place.settings, "here")
    await again.start()

    def not_again(path: Path) -> None:
        raise AssertionError(f"{path} was read again")

    for module in (
        "ostler.library.summaries.read_gguf_header",
        "ostler.library.hf_folder.read_safetensors_header",
    ):
        monkeypatch.setattr(module, not_again)
    assert {item.name: item for item in (await again.list()).items} == before


async def test_inspections_of_files_that_are_gone_are_forgotten(place: Place, database: Database) -> None:
    path = write_model(place.models / "m.gguf")
    write_model(place.models / "n.gguf")
    await place.library.list()
    path.unlink()
    await place.library.list()
    async with database.read() as session:
        rows = (await session.scalars(select(InspectionRow.path))).all()
    assert rows == [str(place.models / "n.gguf")]


async def test_an_unreadable_file_is_tried_again_without_a_change(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(place.models / "m.gguf")
    real_open = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if str(path).endswith("m.gguf"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert "Permission denied" in ((await by_name(place))["m"].error or "")
    await place.library.refresh()
    assert (await by_name(place))["m"].error is None


async def test_listing_runs_in_threads_and_shares_a_scan(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(place.models / "m.gguf")
    real_scandir, scans, threads = os.scandir, [], set()

    def counted(path: str) -> object:
        if str(path) == str(place.models):
            scans.append(path)
            threads.add(threading.current_thread())
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    pages = await asyncio.gather(*(place.library.list() for _ in range(20)))
    assert all(page.total == 1 for page in pages)
    assert len(scans) <= 2
    assert threading.main_thread() not in threads
