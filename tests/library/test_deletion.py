"""Files are deleted only by name, only in roots that Ostler fills, and never what others need."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.core.errors import NotAllowed
from ostler.core.events import EventLog
from ostler.core.principals import Principal
from ostler.library.deletion import DeletePlan
from ostler.library.errors import DeletionFailed, DeletionNotAllowed, FileInUse, FileSetNotFound
from tests.library.conftest import Place
from tests.library.gguf_files import (
    put_in_hub_cache,
    write_model,
    write_projector,
    write_safetensors,
    write_shards,
)

COMMIT, OTHER = "a" * 40, "b" * 40


def nobody(path: Path) -> None:
    return None


def files_under(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file()
    }


async def plan_for(place: Place, name: str) -> DeletePlan:
    found = {item.name: item for item in (await place.library.list(limit=500)).items}[name]
    return await place.library.plan_delete(found.id, nobody)


async def test_nothing_in_the_models_folder_is_ever_deleted(place: Place, manager: Principal) -> None:
    path = write_model(place.models / "mine.gguf")
    with pytest.raises(DeletionNotAllowed, match="never deletes"):
        await plan_for(place, "mine")
    assert path.exists()


async def test_a_folder_added_as_a_hub_cache_is_not_ours_to_delete_from(
    place: Place, admin: Principal, tmp_path: Path
) -> None:
    put_in_hub_cache(
        tmp_path / "theirs", "org/m", COMMIT, {"m-Q8_0.gguf": write_model(tmp_path / "m.gguf", "Q8_0")}
    )
    await place.library.add_root(tmp_path / "theirs", "hub-cache", admin)
    with pytest.raises(DeletionNotAllowed):
        await plan_for(place, "org/m:Q8_0")


async def test_the_last_model_of_a_repo_takes_the_repos_folder_with_it(
    place: Place, manager: Principal, tmp_path: Path, events: EventLog
) -> None:
    model = write_model(tmp_path / "m-Q8_0.gguf", "Q8_0")
    readme = tmp_path / "README.md"
    readme.write_text("about it")
    put_in_hub_cache(
        place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": model, "README.md": readme}, refs=["main", "refs/pr/1"]
    )
    absent = place.cache / "models--org--m" / ".no_exist" / COMMIT / "config.json"
    absent.parent.mkdir(parents=True)
    absent.touch()
    kept = put_in_hub_cache(place.cache, "org/other", COMMIT, {"o.gguf": write_model(tmp_path / "o.gguf")})
    plan = await plan_for(place, "org/m:Q8_0")
    assert plan.freed_bytes == 0, "the bytes still have the names that they came from"
    size_bytes = model.stat().st_size
    model.unlink()
    readme.unlink()
    plan = await plan_for(place, "org/m:Q8_0")
    assert plan.freed_bytes == size_bytes + len("about it")
    assert (place.cache / "models--org--m").exists(), "a plan deletes nothing"
    done = await place.library.delete(plan, manager)
    assert done.freed_bytes == plan.freed_bytes
    assert not (place.cache / "models--org--m").exists()
    assert (kept / "o.gguf").resolve().exists()
    assert [item.name for item in (await place.library.list()).items] == ["org/other:o"]
    (event,), _ = await events.find(kind="file.deleted")
    assert (event.actor, event.subject_name, event.data["freed_bytes"]) == (
        "a manager",
        "org/m:Q8_0",
        plan.freed_bytes,
    )


async def test_one_of_several_quantizations_leaves_the_rest_alone(
    place: Place, manager: Principal, tmp_path: Path
) -> None:
    files = {
        "m-Q8_0.gguf": write_model(tmp_path / "m-Q8_0.gguf", "Q8_0"),
        "m-F16.gguf": write_model(tmp_path / "m-F16.gguf"),
        "mmproj-F16.gguf": write_projector(tmp_path / "mmproj-F16.gguf"),
        "README.md": write_model(tmp_path / "README.md"),
    }
    snapshot = put_in_hub_cache(place.cache, "org/m", COMMIT, files)
    plan = await plan_for(place, "org/m:Q8_0")
    assert [path.name for path, _ in plan.keep] == ["mmproj-F16.gguf"]
    await place.library.delete(plan, manager)
    assert {path.name for path in snapshot.iterdir()} == {"m-F16.gguf", "mmproj-F16.gguf", "README.md"}
    assert all(path.resolve().exists() for path in snapshot.iterdir())
    assert files_under(place.cache / "models--org--m" / "refs") == {"main"}


async def test_bytes_that_another_revision_uses_are_kept(
    place: Place, manager: Principal, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m-Q8_0.gguf", "Q8_0")
    old = put_in_hub_cache(place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": model}, refs=["old"])
    new = put_in_hub_cache(place.cache, "org/m", OTHER, {"renamed-Q8_0.gguf": model}, refs=["main"])
    sets = (await place.library.list()).items
    (doomed,) = [item for item in sets if item.revision == COMMIT]
    plan = await place.library.plan_delete(doomed.id, nobody)
    assert plan.freed_bytes == 0
    assert "another revision" in plan.keep[0][1]
    await place.library.delete(plan, manager)
    assert not old.exists()
    assert (new / "renamed-Q8_0.gguf").resolve().stat().st_size == model.stat().st_size
    assert files_under(place.cache / "models--org--m" / "refs") == {"main"}


async def test_all_shards_go_together(place: Place, manager: Principal, tmp_path: Path) -> None:
    shards = write_shards(tmp_path, "m-Q8_0", 3)
    put_in_hub_cache(place.cache, "org/m", COMMIT, {f"Q8_0/{shard.name}": shard for shard in shards})
    await place.library.delete(await plan_for(place, "org/m:Q8_0"), manager)
    assert list(place.cache.iterdir()) == []


async def test_a_safetensors_repo_goes_with_its_configuration(
    place: Place, manager: Principal, tmp_path: Path
) -> None:
    files = {"model.safetensors": write_safetensors(tmp_path / "st", {"a": ("F16", (2, 2))})}
    for name in ("config.json", "tokenizer.json", "LICENSE"):
        (tmp_path / name).write_text("{}")
        files[name] = tmp_path / name
    put_in_hub_cache(place.cache, "org/st", COMMIT, files)
    await place.library.delete(await plan_for(place, "org/st"), manager)
    assert list(place.cache.iterdir()) == []


async def test_weights_that_we_cannot_read_are_not_swept_away(
    place: Place, manager: Principal, tmp_path: Path
) -> None:
    other = tmp_path / "pytorch_model.bin"
    other.write_bytes(b"pickle")
    files = {"m-Q8_0.gguf": write_model(tmp_path / "m-Q8_0.gguf", "Q8_0"), "pytorch_model.bin": other}
    snapshot = put_in_hub_cache(place.cache, "org/m", COMMIT, files)
    await place.library.delete(await plan_for(place, "org/m:Q8_0"), manager)
    assert [path.name for path in snapshot.iterdir()] == ["pytorch_model.bin"]
    assert (snapshot / "pytorch_model.bin").read_bytes() == b"pickle"


async def test_a_file_in_use_is_refused_at_the_plan_and_again_at_the_act(
    place: Place, manager: Principal, tmp_path: Path
) -> None:
    snapshot = put_in_hub_cache(
        place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": write_model(tmp_path / "m-Q8_0.gguf", "Q8_0")}
    )
    users: dict[Path, str] = {}
    (item,) = (await place.library.list()).items
    plan = await place.library.plan_delete(item.id, users.get)
    for path in (snapshot / "m-Q8_0.gguf", (snapshot / "m-Q8_0.gguf").resolve()):
        users[path] = "busy-model"
        with pytest.raises(FileInUse, match="busy-model") as caught:
            await place.library.plan_delete(item.id, users.get)
        assert caught.value.hint and "ostler stop busy-model" in caught.value.hint
        with pytest.raises(FileInUse):
            await place.library.delete(plan, manager)
        users.clear()
    assert (snapshot / "m-Q8_0.gguf").resolve().exists()


async def test_deleting_needs_the_role_manager(place: Place, user: Principal, tmp_path: Path) -> None:
    put_in_hub_cache(place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": write_model(tmp_path / "m.gguf", "Q8_0")})
    plan = await plan_for(place, "org/m:Q8_0")
    with pytest.raises(NotAllowed, match="may not delete model files"):
        await place.library.delete(plan, user)
    assert (await place.library.list()).total == 1


async def test_deleting_twice_says_that_it_is_gone(place: Place, manager: Principal, tmp_path: Path) -> None:
    put_in_hub_cache(place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": write_model(tmp_path / "m.gguf", "Q8_0")})
    plan = await plan_for(place, "org/m:Q8_0")
    await place.library.delete(plan, manager)
    with pytest.raises(FileSetNotFound):
        await place.library.delete(plan, manager)


async def test_a_file_that_cannot_be_deleted_is_told_with_what_was(
    place: Place, manager: Principal, tmp_path: Path, events: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_hub_cache(
        place.cache, "org/m", COMMIT, {"m-Q8_0.gguf": write_model(tmp_path / "m-Q8_0.gguf", "Q8_0")}
    )
    plan = await plan_for(place, "org/m:Q8_0")
    real = Path.unlink

    def refuse(self: Path, missing_ok: bool = False) -> None:
        if "blobs" in self.parts:
            raise OSError(30, "Read-only file system")
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DeletionFailed, match="Read-only"):
        await place.library.delete(plan, manager)
    (event,), _ = await events.find(kind="file.delete_failed")
    assert [Path(path).name for path in event.data["deleted"]] == ["m-Q8_0.gguf"]
