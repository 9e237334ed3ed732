"""How a model looks in an answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ostler.api.estimates import estimate_of
from ostler.api.native.instances import InstanceOut, view_for
from ostler.api.native.model_files import files_by_model
from ostler.api.services import Services
from ostler.api.shapes import Out, hide_args, hide_env, shape_of
from ostler.core.errors import OstlerError
from ostler.core.principals import Principal
from ostler.core.states import InstanceState
from ostler.fit.estimated import Exactness
from ostler.library.filesets import FileSet
from ostler.models.records import Model


class ModelFilesOut(Out):
    """The files of a model, in short; all of it is at /files/{id}."""

    id: str
    path: str
    size_bytes: int
    format: str
    complete: bool
    layout: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    facts: dict[str, Any] | None = None
    error: str | None = None


@shape_of(Model, without=("dialect_data",))
class ModelOut(Out):
    """A model. Values of environment variables and arguments that look secret are hidden.

    `automatic`: it is there because its files are in a cache, and nothing is stored of it (its id is 0) until
    it is used for the first time.
    """

    automatic: bool = False
    source: dict[str, Any]
    state: InstanceState
    instance: InstanceOut | None
    file_set: ModelFilesOut | None = None


class DeviceMemoryOut(Out):
    """Bytes on one device: a start is planned with `planned_bytes`. `error` is that of the estimate."""

    id: str
    planned_bytes: int
    estimated_bytes: int | None
    measured_bytes: int | None
    error: float | None


class ModelMemoryOut(Out):
    """What a model takes. `load_seconds` are its last loads, newest first."""

    exactness: Exactness | None
    devices: list[DeviceMemoryOut]
    has_served: bool
    load_seconds: list[float]
    expected_load_s: float | None
    measured_at: datetime | None


class ModelDetailOut(ModelOut):
    """A model with what is wrong with its files, if they cannot be used.

    `memory` is what it takes by device, estimated and measured, and how long its loads took. `chosen` are
    the options that a start would choose because the recipe leaves them open, each with name, value and
    reason; `nothing_chosen` says why there are none.
    """

    files_problem: str | None = None
    memory: ModelMemoryOut | None = None
    chosen: list[dict[str, Any]] = []
    nothing_chosen: str | None = None


def model_out(rooms: Services, who: Principal, model: Model) -> dict[str, Any]:
    """A model with its state."""
    view = rooms.instances.view(model.id) if model.id else None
    values = {name: getattr(model, name) for name in Model.__slots__ if name != "dialect_data"}
    return {
        **values,
        "source": model.source.to_json(),
        "env": hide_env(model.env),
        "extra_args": hide_args(model.extra_args),
        "automatic": view is None,
        "state": view.state if view else InstanceState.STOPPED,
        "instance": view_for(who, view) if view and view.id is not None else None,
    }


async def model_with_files(rooms: Services, who: Principal, model: Model) -> dict[str, Any]:
    """A model with its state and what is known of its files, or what is wrong with them."""
    answer = model_out(rooms, who, model)
    try:
        files = await rooms.models.resolve_files(model)
    except OstlerError as error:
        return {**answer, "files_problem": error.message}
    memory = await rooms.instances.memory_of(model)
    choice = await rooms.instances.choice(model)
    return {
        **answer,
        "file_set": files_out(files),
        "memory": memory,
        "chosen": choice.to_json(),
        "nothing_chosen": choice.unknown_why,
    }


async def models_with_files(
    rooms: Services, who: Principal, models: list[Model], known: Mapping[str, FileSet] | None = None
) -> list[dict[str, Any]]:
    """Models with their states and what is known of their files; `known` are those of automatic ones."""
    found = await files_by_model(rooms, [model for model in models if model.id])
    shown = []
    for model in models:
        files = found.get(model.id) or (known or {}).get(model.name)
        shown.append({**model_out(rooms, who, model), "file_set": files_out(files) if files else None})
    return shown


def files_out(files: FileSet) -> dict[str, Any]:
    """Files in short."""
    facts = files.facts
    return {
        "id": files.id,
        "path": str(files.path),
        "size_bytes": files.size_bytes,
        "format": files.format,
        "complete": files.complete,
        "layout": files.layout,
        "quantization": facts.quantization if facts else files.tag,
        "context_length": facts.context_length if facts else None,
        "facts": facts.to_json() if facts else None,
        "error": files.error,
    }


async def memory_needs(rooms: Services, model: Model) -> dict[str, Any] | None:
    """The estimate of the memory that it will take, in bytes; None where its files cannot be read."""
    found = await estimate_of(rooms, model, model.options)
    return found[0].to_json() if found else None
