"""The folders that the library looks into."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import InvalidField, NotAllowed
from ostler.core.events import EventLog
from ostler.core.principals import Principal
from ostler.core.settings import Settings
from ostler.library.errors import NestedRoots, PathNotFound, RootExists, RootIsConfigured, RootNotFound
from ostler.library.service import Library
from tests.library.conftest import Place
from tests.library.gguf_files import write_model


async def start(database: Database, events: EventLog, node: str = "here", **paths: Path) -> Library:
    library = Library(database, events, Clock(), Settings(**paths), node)  # type: ignore[arg-type]
    await library.start()
    return library


async def test_the_configured_folders_are_roots(place: Place) -> None:
    roots = {root.path: (root.layout, root.filled_by_ostler) for root in await place.library.roots()}
    assert roots == {
        place.models: ("folder", False),
        place.cache: ("hub-cache", True),
        place.settings.effective_reshaped_dir: ("folder", True),
    }


async def test_roots_follow_the_settings_at_each_start(
    place: Place, database: Database, events: EventLog, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    again = await start(
        database, events, models_dir=tmp_path / "new", hub_cache_dir=place.cache, reshaped_dir=own
    )
    roots = {root.path: root.available for root in await again.roots()}
    assert roots == {tmp_path / "new": False, place.cache: True, own: True}


async def test_nodes_have_their_own_roots(place: Place, database: Database, events: EventLog) -> None:
    other = await start(database, events, "there", models_dir=place.models, hub_cache_dir=place.cache)
    assert {root.node for root in await other.roots()} == {"there"}
    assert {root.node for root in await place.library.roots()} == {"here"}


@pytest.mark.parametrize(("models", "cache"), [("a", "a/b"), ("a/b", "a"), ("a", "a"), ("a", "link/b")])
async def test_a_cache_inside_the_models_folder_or_around_it_is_refused_at_start(
    database: Database, events: EventLog, tmp_path: Path, models: str, cache: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(NestedRoots):
        await start(database, events, models_dir=tmp_path / models, hub_cache_dir=tmp_path / cache)


async def test_a_folder_is_added_listed_and_removed_and_its_files_stay(
    place: Place, admin: Principal, tmp_path: Path, events: EventLog
) -> None:
    model = write_model(tmp_path / "more" / "m.gguf")
    root = await place.library.add_root(tmp_path / "more", "folder", admin)
    assert not root.filled_by_ostler
    assert [item.path for item in (await place.library.list()).items] == [model]
    await place.library.remove_root(root.id, admin)
    assert (await place.library.list()).total == 0
    assert model.exists()
    kinds = [event.kind for event in (await events.find(kind="root."))[0]]
    assert kinds == ["root.removed", "root.added"]


async def test_folders_that_cannot_be_roots_are_refused(
    place: Place, admin: Principal, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (place.models / "inner").mkdir()
    for path, layout, error in (
        (tmp_path / "none", "folder", PathNotFound),
        (tmp_path / "file", "folder", PathNotFound),
        (Path("relative"), "folder", InvalidField),
        (tmp_path, "flat", InvalidField),
        (place.models / "inner", "folder", NestedRoots),
        (tmp_path, "folder", NestedRoots),
        (place.models, "folder", RootExists),
    ):
        with pytest.raises(error):
            await place.library.add_root(path, layout, admin)
    assert len(await place.library.roots()) == 3


async def test_configured_unknown_and_forbidden_roots_are_not_removed(
    place: Place, admin: Principal, manager: Principal
) -> None:
    (first, *_) = await place.library.roots()
    with pytest.raises(RootIsConfigured):
        await place.library.remove_root(first.id, admin)
    with pytest.raises(RootNotFound):
        await place.library.remove_root(999, admin)
    with pytest.raises(NotAllowed):
        await place.library.remove_root(first.id, manager)


async def test_a_root_that_is_not_there_is_reported_and_its_inspections_are_kept(place: Place) -> None:
    write_model(place.models / "m.gguf")
    assert (await place.library.list()).total == 1
    place.models.rename(place.models.with_name("unmounted"))
    assert (await place.library.list()).total == 0
    assert [problem.path for problem in await place.library.problems()] == [str(place.models)]
    place.models.with_name("unmounted").rename(place.models)
    assert (await place.library.list()).total == 1
