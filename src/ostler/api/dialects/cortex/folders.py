"""Choosing files for a new model: the base folder, what is in it, and what the hub says of a repo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import Query

from ostler.api.dialects.base import Refused
from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.dialects.cortex.folder_answers import folder_out
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import NotFound
from ostler.core.principals import Role
from ostler.hub.errors import NoSuchFile, RepoNotFound
from ostler.hub.specs import MAX_SPEC_LENGTH
from ostler.library.errors import OutsideRoots, PathNotFound
from ostler.library.paths import safe_join

routes = router("models")

MAX_PATH = 4_096


class FolderNotFound(NotFound):
    """The folder to inspect is not there."""

    hint = "See which folders there are: GET /admin/models/local-folders"


class ConfigNotFound(NotFound):
    """The hub has no such repo, or the repo holds nothing that says what the model is."""


class BaseDirIn(CortexBody):
    """Where models are looked for, as an absolute path."""

    base_dir: str = ""


@routes.get("/admin/models/base-dir", **needs(Role.ADMIN))
async def show_base_dir(rooms: Rooms, who: Who) -> dict[str, str]:
    """The folder that is browsed first, and that relative paths start from."""
    return {"base_dir": str(rooms.settings.current.effective_base_dir)}


@routes.put("/admin/models/base-dir", **needs(Role.ADMIN))
async def set_base_dir(rooms: Rooms, who: Who, body: BaseDirIn) -> dict[str, str]:
    """Browse another folder, which becomes a library folder if it is none; nothing in it is changed."""
    text = body.base_dir.strip()
    if not text:
        raise Refused("base_dir_required", "base_dir is empty", hint="Give the folder's absolute path.")
    path = _absolute(text, "base_dir_must_be_absolute")
    try:
        await rooms.library.root_of(path)
        await rooms.library.subfolders(path)  # PathNotFound where it is no folder
    except OutsideRoots:
        await rooms.library.add_root(path, "folder", who)
    await rooms.settings.change({"models_base_dir": str(path)}, who)
    return {"base_dir": str(rooms.settings.current.effective_base_dir)}


@routes.get("/admin/models/local-folders", **needs(Role.ADMIN))
async def list_local_folders(
    rooms: Rooms, who: Who, base: Annotated[str, Query(max_length=MAX_PATH)] = ""
) -> list[str]:
    """Names of the folders directly in `base`, by default the base folder; `[]` where it is not there."""
    try:
        return [folder.name for folder in await rooms.library.subfolders(_base(rooms, base))]
    except PathNotFound:
        return []  # what Cortex's page expects of a base folder that is not made yet


@routes.get("/admin/models/inspect-folder", **needs(Role.ADMIN))
async def inspect_folder(
    rooms: Rooms,
    who: Who,
    base: Annotated[str, Query(max_length=MAX_PATH)] = "",
    folder: Annotated[str, Query(max_length=MAX_PATH)] = "",
) -> dict[str, Any]:
    """Every model in a folder and below it, and the engine that serves each format."""
    if not base.strip():
        raise Refused("base_required", "base is empty", hint="Give the base folder's absolute path.")
    start = _base(rooms, base)
    await rooms.library.root_of(start)
    is_base = folder.strip().strip("/") in ("", ".")
    path = start if is_base else safe_join(start, folder)
    try:
        view = await rooms.library.look_into(path)
    except PathNotFound as error:
        raise FolderNotFound(error.message, path=str(path)) from error
    return folder_out(view, rooms.settings.current.effective_base_dir, rooms.engines)


@routes.get("/admin/models/hf-config", **needs(Role.ADMIN))
async def show_hub_config(
    rooms: Rooms, who: Who, repo_id: Annotated[str, Query(max_length=MAX_SPEC_LENGTH)] = ""
) -> dict[str, Any]:
    """The numbers of a repo's `config.json`, and its parameters by the headers of its weights."""
    if not repo_id.strip():
        raise Refused("repo_id_required", "repo_id is empty", hint="Such as repo_id=org/name")
    try:
        facts = await rooms.hub.facts(repo_id.strip())
    except (NoSuchFile, RepoNotFound) as error:
        raise ConfigNotFound(error.message, hint=error.hint, repo=repo_id) from error
    return {
        "hidden_size": facts.embedding_length,
        "num_hidden_layers": facts.block_count,
        "num_attention_heads": facts.n_heads,
        "params_b": round(facts.parameters / 1e9, 3) if facts.parameters else None,
    }


def _base(rooms: Services, text: str) -> Path:
    return (
        _absolute(text.strip(), "base_must_be_absolute")
        if text.strip()
        else rooms.settings.current.effective_base_dir
    )


def _absolute(text: str, word: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or not text.isprintable():
        raise Refused(
            word, f"{text[:200]!r} is not an absolute path without '..'", hint="Such as /var/cortex/models"
        )
    return path
