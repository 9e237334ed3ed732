"""What there is: version, tags, show, ps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ostler.access.names import may_use
from ostler.api.dialects.ollama import details
from ostler.api.dialects.ollama.answering import moment
from ostler.api.dialects.ollama.door import Answer, NamedBody, router
from ostler.api.dialects.ollama.names import named
from ostler.api.door import needs, open_to_all
from ostler.api.native.model_files import files_by_model
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import OstlerError
from ostler.core.principals import Principal, Role
from ostler.core.states import InstanceState
from ostler.instances.views import InstanceView
from ostler.library.filesets import FileSet
from ostler.models.records import HOST_DEVICE, Model

routes = router("models")

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""When a model expires that does not: Ollama's command line calls what is so far away `Forever`."""
OLLAMA_VERSION = "0.12.0"
"""Whose API this is; clients ask for it to know what they may send."""


class ShowIn(NamedBody):
    """Which model; `verbose` is passed over: what is long is never shown."""


@routes.get("/api/version", **open_to_all())
async def show_version(rooms: Rooms) -> Answer:
    """The version of Ollama whose API is spoken, and our own."""
    return {"version": OLLAMA_VERSION, "ostler": rooms.version}


@routes.get("/api/tags", **needs(Role.USER))
async def list_tags(rooms: Rooms, who: Who) -> Answer:
    """Every model that the caller may use, the last changed first."""
    models = visible(rooms, who)
    its_files = await files_by_model(rooms, models)
    rows = [_row(model, its_files.get(model.id)) for model in models]
    rows += [
        _row(found.as_model(rooms.node), found.file_set)
        for found in await rooms.automatic.list()
        if may_use(who, found.name)
    ]
    rows += [
        {"name": other.name, "model": other.name, "modified_at": moment(datetime.fromtimestamp(0, UTC))}
        | {"size": 0, "digest": details.digest(other.name, None), "details": details.details(None)}
        for other in rooms.pools.all()
        if rooms.models.find(other.name) is None and may_use(who, other.name)
    ]
    return {"models": details.newest_first(rows)}


@routes.post("/api/show", **needs(Role.USER))
async def show_model(rooms: Rooms, who: Who, body: ShowIn) -> Answer:
    """One model, with what its file says."""
    model = await named(rooms, body.its_name, who)
    files, header = await _files_of(rooms, model), None
    if files is not None and files.format == "gguf":
        header = await rooms.library.header(files)
    system = model.request_defaults.get("system_prompt")
    facts, kept = files.facts if files else None, details.kept(model)
    return {
        "license": kept.get("license") or (facts.license if facts else None) or "",
        "modelfile": details.modelfile(model, system),
        "parameters": details.parameter_text(model),
        "template": model.options.get("chat_template") or (header.chat_template if header else None) or "",
        "system": system or "",
        "details": details.details(files),
        "messages": kept.get("messages") or [],
        "model_info": details.model_info(files, header),
        "capabilities": details.capabilities(files, header),
        "modified_at": moment(model.updated_at),
    }


@routes.get("/api/ps", **needs(Role.USER))
async def list_running(rooms: Rooms, who: Who) -> Answer:
    """Every model that holds memory now."""
    running = [
        (view, model)
        for view in rooms.instances.views()
        if view.state in (InstanceState.LOADING, InstanceState.RUNNING)
        and may_use(who, *(model := rooms.models.get(view.model_id)).listed_as)
    ]
    its_files = await files_by_model(rooms, [model for _, model in running])
    return {
        "models": [await _running(rooms, view, model, its_files.get(model.id)) for view, model in running]
    }


def visible(rooms: Services, who: Principal) -> list[Model]:
    """The models that this principal may use."""
    return [model for model in rooms.models.all() if not model.archived and may_use(who, *model.listed_as)]


def _row(model: Model, files: FileSet | None) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": moment(model.updated_at),
        "size": files.size_bytes if files else 0,
        "digest": details.digest(model.name, files),
        "details": details.details(files),
    }


async def _running(
    rooms: Services, view: InstanceView, model: Model, files: FileSet | None
) -> dict[str, Any]:
    """`size` is all of its memory, `size_vram` what of it is on GPUs, measured or else planned."""
    report = await rooms.instances.memory_of(model) or {"devices": []}
    held = {
        device["id"]: device["measured_bytes"] or device["planned_bytes"] or 0 for device in report["devices"]
    }
    row = {name: value for name, value in _row(model, files).items() if name != "modified_at"}
    return {
        **row,
        "size": view.memory_bytes or sum(held.values()),
        "size_vram": sum(size for id, size in held.items() if id != HOST_DEVICE),
        "expires_at": moment(_expires(rooms, view)),
        "context_length": view.context_length or 0,
    }


def _expires(rooms: Services, view: InstanceView) -> datetime:
    """When it goes if nobody asks it any more; while it serves, counted from now."""
    if view.expires_at is not None:
        return view.expires_at
    idle_s = rooms.instances.idle_timeout_s(view.model_id)
    return NEVER if idle_s is None else rooms.clock.now() + timedelta(seconds=idle_s)


async def _files_of(rooms: Services, model: Model) -> FileSet | None:
    try:
        return await rooms.models.resolve_files(model)
    except OstlerError:
        return None  # gone or broken: the rest of the model is shown all the same
