"""Models: list, show, make, change, archive and delete them. What runs is in `lifecycle.py`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

from fastapi import Response
from pydantic import BaseModel, create_model

from ostler.api.dialects.base import Refused
from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.dialects.cortex.fields import FIELDS, LLAMACPP, VLLM, Field, fields_of
from ostler.api.dialects.cortex.records import at_file, changes_of, model_fields, new_model_of
from ostler.api.dialects.cortex.words import Id
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import InvalidField, OstlerError
from ostler.core.launch import HIDDEN
from ostler.core.principals import Role
from ostler.instances.views import InstanceView
from ostler.library.errors import BrokenFile
from ostler.library.filesets import FileSet
from ostler.models.index import ModelNotFound
from ostler.models.records import Model, NewModel, Source

S = TypeVar("S", bound=BaseModel)

routes = router("models")

FILES_KEPT = "The model's record is gone; its files are where they were, untouched."


def _with_fields(fields: Iterable[Field]) -> Callable[[type[S]], type[S]]:
    """Makes a class the shape of a body that has these fields too; each may be left out."""

    def complete(shape: type[S]) -> type[S]:
        more: dict[str, Any] = {f.name: (f.kind | None, None) for f in fields if f.name != "mode"}
        made: Any = create_model(
            shape.__name__, __base__=shape, __module__=shape.__module__, __doc__=shape.__doc__, **more
        )
        return cast(type[S], made)

    return complete


@_with_fields(FIELDS)
class ModelIn(CortexBody):
    """A new model; `fields.py` has its fields."""

    mode: str
    engine_type: str | None = None
    runtime: Literal["docker", "process"] | None = None


@_with_fields(field for field in FIELDS if field.can_change)
class ModelChanges(CortexBody):
    """What to change; what is left out stays, null takes a value away."""

    archived: bool | None = None
    runtime: Literal["docker", "process"] | None = None


@routes.get("/admin/models", **needs(Role.ADMIN))
async def list_models(rooms: Rooms) -> Response:
    """Every model by its id, archived ones too."""
    base_dir, texts = rooms.settings.current.effective_base_dir, rooms.worked_out.setdefault(_TEXTS, {})
    models = sorted(rooms.models.all(), key=lambda model: model.id)
    for gone in texts.keys() - {model.id for model in models}:
        del texts[gone]
    items = [_item_text(rooms, model, base_dir, texts) for model in models]
    return Response(f"[{','.join(items)}]", media_type="application/json")


_TEXTS = "cortex model texts"


def _item_text(rooms: Services, model: Model, base_dir: Path, texts: dict[int, Any]) -> str:
    """`model_item` as JSON. What follows from the record is written anew only after a change of it."""
    known = texts.get(model.id)
    if known is None or known[0] is not model or known[1] != base_dir:
        known = texts[model.id] = (model, base_dir, json.dumps(_recorded(model, base_dir))[:-1])
    return f"{known[2]}, {json.dumps(_live(rooms, model))[1:]}"


@routes.post("/admin/models", **needs(Role.ADMIN))
async def make_model(rooms: Rooms, who: Who, body: ModelIn) -> dict[str, int]:
    """Make a model from a path inside the base folder, or from a repo of the hub; it is stopped."""
    with in_cortex_words(body.engine_type or VLLM):
        new = await new_model(rooms, body.model_dump(exclude_unset=True))
        made = await rooms.models.create(new, who)
    return {"id": made.id}


@routes.get("/admin/models/{model_id}", **needs(Role.ADMIN))
async def show_model(rooms: Rooms, model_id: Id) -> dict[str, Any]:
    """One model as it stands in the list."""
    return model_item(rooms, found(rooms, model_id), rooms.settings.current.effective_base_dir)


@routes.patch("/admin/models/{model_id}", **needs(Role.ADMIN))
async def change_model(rooms: Rooms, who: Who, model_id: Id, body: ModelChanges) -> dict[str, str]:
    """Change a model. Request defaults hold at once, what the engine is started with after `apply`."""
    model, base_dir = found(rooms, model_id), rooms.settings.current.effective_base_dir
    with in_cortex_words(model.engine):
        patch = body.model_dump(exclude_unset=True)
        has_gpus = await _has_gpus(rooms)
        changes = await asyncio.to_thread(changes_of, patch, model, base_dir, has_gpus=has_gpus)
        if changes:
            await rooms.models.update(model_id, changes, who)
    return {"status": "ok"}


@routes.post("/admin/models/{model_id}/archive", **needs(Role.ADMIN))
async def archive_model(rooms: Rooms, who: Who, model_id: Id) -> dict[str, str]:
    """Put it aside; nothing else changes."""
    await rooms.models.update(found(rooms, model_id).id, {"archived": True}, who)
    return {"status": "archived"}


@routes.post("/admin/models/{model_id}/unarchive", **needs(Role.ADMIN))
async def unarchive_model(rooms: Rooms, who: Who, model_id: Id) -> dict[str, str]:
    """Bring it back."""
    await rooms.models.update(found(rooms, model_id).id, {"archived": False}, who)
    return {"status": "unarchived"}


@routes.delete("/admin/models/{model_id}", **needs(Role.ADMIN))
async def delete_model(rooms: Rooms, who: Who, model_id: Id) -> dict[str, Any]:
    """Stop it, and delete its record and the recipes made of it. No file is touched."""
    model = found(rooms, model_id)
    await rooms.instances.stop(model.id, who)
    recipes = await rooms.recipes.list(model_id=model.id, limit=2**31 - 1)
    await rooms.models.delete(model.id, who)
    for recipe in recipes.items:
        await rooms.recipes.delete(recipe.id, who)
    return {
        "status": "deleted",
        "files_preserved": True,
        "recipes_deleted": len(recipes.items),
        "note": FILES_KEPT,
    }


def found(rooms: Services, model_id: int) -> Model:
    """The model of that id. Raises ModelNotFound."""
    try:
        return rooms.models.get(model_id)
    except ModelNotFound as error:
        raise ModelNotFound(error.message, hint="See them with: GET /admin/models", model=model_id) from None


async def new_model(rooms: Services, given: dict[str, Any]) -> NewModel:
    """The record that a body means, with the defaults of what it leaves out. Raises Refused, InvalidField."""
    defaults = {
        field.name: field.default
        for field in FIELDS
        if field.default is not None and field.engine in (None, given.get("engine_type") or "vllm")
    }
    return await record_of(rooms, {**defaults, **given})


async def record_of(rooms: Services, values: dict[str, Any]) -> NewModel:
    """The record of just these fields, its files looked at. Raises Refused, InvalidField."""
    settings = rooms.settings.current
    if HIDDEN in (str(values.get("hf_token")), *_env_values(values)):
        raise InvalidField("hf_token", f"{HIDDEN} stands for a hidden secret", hint="Send the real value.")
    runtime = values.get("runtime") or await runtime_of_new(rooms)
    new = await asyncio.to_thread(
        new_model_of, values, settings.effective_base_dir, runtime, has_gpus=await _has_gpus(rooms)
    )
    if not new.name:
        raise InvalidField("served_model_name", "a model needs a served_model_name", hint="Such as qwen3-8b.")
    return await _with_files(rooms, new)


async def _has_gpus(rooms: Services) -> bool:
    return any(device.kind != "cpu" for device in await rooms.devices.list())


async def runtime_of_new(rooms: Services) -> str:
    """Where a model runs whose body does not say it."""
    chosen = rooms.settings.current.cortex_runtime
    if chosen != "auto":
        return chosen
    docker = rooms.runtimes.get("docker")
    return "docker" if docker is not None and (await docker.check()).ok else "process"


def _env_values(values: dict[str, Any]) -> list[str]:
    text = values.get("engine_startup_env_json")
    return [HIDDEN] if HIDDEN in json.dumps(text, default=str) else []


async def _with_files(rooms: Services, new: NewModel) -> NewModel:
    """The same, for files that are there and that its engine loads. Raises Refused."""
    source = new.source
    if not isinstance(source, Source) or source.path is None:
        return new
    path = Path(source.path)
    files = await _files_at(rooms, path, engine=str(new.engine))
    if files is None:
        is_llama = new.engine == LLAMACPP
        word = "llamacpp requires a GGUF file" if is_llama else "local_path_not_found"
        what = "a GGUF file, or a folder with one" if is_llama else "a folder with a model"
        raise Refused(
            word, f"{path} is not {what}", hint="See what is there: GET /admin/models/inspect-folder"
        )
    if files.error is not None:
        raise Refused("invalid_model_file", f"{path} cannot be loaded: {files.error}")
    is_gguf = files.format == "gguf"
    if is_gguf and new.engine != LLAMACPP:
        raise Refused(
            "gguf_requires_llamacpp", "vLLM does not load GGUF files", hint="Send engine_type=llamacpp."
        )
    if not is_gguf and new.engine == LLAMACPP:
        raise Refused(
            "llamacpp requires a GGUF file",
            f"{path} holds no GGUF file but {files.format}",
            hint="Send engine_type=vllm.",
        )
    base_dir = rooms.settings.current.effective_base_dir
    is_inside = files.path != path and files.path.is_relative_to(path)
    return at_file(new, files.path, base_dir) if is_inside else new


async def _files_at(rooms: Services, path: Path, *, engine: str) -> FileSet | None:
    """The files that a path means; in a folder of several GGUF models the first by name, as with Cortex."""
    try:
        files = await rooms.library.find(path=path)
        if files is None and path.suffix:
            files = await rooms.library.inspect(path)
    except BrokenFile as error:
        raise Refused("invalid_model_file", error.message, hint=error.hint) from error
    except OstlerError:
        files = None
    if files is not None and (files.format == "gguf") == (engine == LLAMACPP):
        return files
    if engine != LLAMACPP:
        return files
    every = await rooms.library.list(format="gguf", limit=2**31 - 1)
    inside = [each for each in every.items if each.path.is_relative_to(path)]
    return min(inside, key=lambda each: str(each.path), default=files)


def model_item(rooms: Services, model: Model, base_dir: Path) -> dict[str, Any]:
    """A model as Cortex lists it: its fields, its state, and where it runs now."""
    return {**_recorded(model, base_dir), **_live(rooms, model)}


def _recorded(model: Model, base_dir: Path) -> dict[str, Any]:
    return {
        "id": model.id,
        **model_fields(model, base_dir),
        "archived": model.archived,
        "read_only": model.read_only,
        "runtime": model.runtime,
        "created_at": model.created_at.isoformat(),
        "updated_at": model.updated_at.isoformat(),
    }


def _live(rooms: Services, model: Model) -> dict[str, Any]:
    view = rooms.instances.view(model.id)
    return {
        "state": view.state.value,
        "state_reason": view.reason,
        "restart_required": view.drift,
        **place_of(rooms, model, view),
    }


def place_of(rooms: Services, model: Model, view: InstanceView) -> dict[str, Any]:
    """The container and the port of an engine that is there; both null where none is."""
    is_there = view.state.is_active and view.runtime == "docker" and view.id is not None
    prefix = rooms.settings.current.docker_name_prefix
    return {
        "container_name": f"{prefix}{view.engine}-model-{model.id}" if is_there else None,
        "port": (urlsplit(view.url).port or None) if view.url else None,  # 0: its container has none now
    }


@contextmanager
def in_cortex_words(engine: str) -> Iterator[None]:
    """Names the field in Cortex's words where our record refuses a value for that engine."""
    try:
        yield
    except InvalidField as error:
        theirs = _cortex_name(str(error.facts.get("field") or ""), engine)
        if theirs is None:
            raise
        raise InvalidField(theirs, error.message, hint=error.hint) from error


_OF_GROUPS = {
    "engine": "engine_type",
    "name": "served_model_name",
    "extra_args": "engine_startup_args_json",
    "policy.devices": "selected_gpus",
}

_OF_DOCUMENTS = {"env": "engine_startup_env_json", "request_defaults": "custom_request_json"}


def _cortex_name(ours: str, engine: str) -> str | None:
    named = {f"{place[0]}.{place[1]}": f.name for f in fields_of(engine) if (place := f.document)}
    if ours in named or ours in _OF_GROUPS:
        return named.get(ours) or _OF_GROUPS[ours]
    return _OF_DOCUMENTS.get(ours.partition(".")[0])
