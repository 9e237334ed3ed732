"""What the playground asks of models, under `/v1`: which there are, which run, what they take."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from ostler.access.names import may_use
from ostler.api.dialects.cortex.door import router
from ostler.api.dialects.cortex.words import EMBED, task_of
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import NotFound, OstlerError
from ostler.core.principals import Principal, Role
from ostler.core.states import InstanceState
from ostler.models.records import Model

routes = router("playground")

MAX_TOKENS = 512
ASSUMED_CONTEXT = 4_096
"""Tokens of context where nothing says how many there are."""


class ModelNotRunning(NotFound):
    """The model does not answer requests now."""

    hint = "See which run: GET /v1/models/running"


@routes.get("/v1/models/status", **needs(Role.USER))
async def show_status(rooms: Rooms, who: Who) -> dict[str, Any]:
    """Every served name that you may use, running or down."""
    ours = [
        _status(model.name, task_of(model), running=_runs(rooms, model))
        for model in rooms.models.all()
        if not model.archived and may_use(who, *model.names)
    ]
    theirs = [
        _status(name, task, running=healthy)
        for name, task, _, healthy in _elsewhere(rooms)
        if may_use(who, name)
    ]
    return {"data": [*ours, *theirs]}


@routes.get("/v1/models/running", **needs(Role.USER))
async def list_running(rooms: Rooms, who: Who, include_embed: bool = False) -> list[dict[str, Any]]:
    """The models that answer now, by name; those that embed only where asked for."""
    found = [
        _running(model.name, task_of(model), model.engine)
        for model in rooms.models.all()
        if _runs(rooms, model) and may_use(who, *model.listed_as)
    ]
    found += [
        _running(name, task, engine)
        for name, task, engine, healthy in _elsewhere(rooms)
        if healthy and may_use(who, name)
    ]
    wanted = [each for each in found if include_embed or not each["task"].startswith(EMBED)]
    return sorted(wanted, key=lambda each: str(each["served_model_name"]).lower())


@routes.get("/v1/models/{model_name:path}/constraints", **needs(Role.USER))
async def show_constraints(
    rooms: Rooms, who: Who, model_name: Annotated[str, Path(max_length=300)]
) -> dict[str, Any]:
    """What a running model takes: its context, defaults of its requests, a sensible length of answers."""
    model = rooms.models.find(model_name)
    if model is not None and _runs(rooms, model) and may_use(who, *model.listed_as):
        return await _constraints(rooms, model)
    return _constraints_elsewhere(rooms, who, model_name)


async def _constraints(rooms: Services, model: Model) -> dict[str, Any]:
    said = rooms.instances.view(model.id).context_length  # what the engine itself says, once it is asked
    context = said or model.options.get("context_length") or await _trained_context(rooms, model)
    own = "max_model_len" if model.engine == "vllm" else "context_size"
    return {
        "served_model_name": model.name,
        "engine_type": model.engine,
        "task": task_of(model),
        "context_size": None,
        "max_model_len": None,
        own: context,
        "max_tokens_default": min(MAX_TOKENS, (context or ASSUMED_CONTEXT) // 2),
        "request_defaults": dict(model.request_defaults) or None,
        "supports_streaming": True,
        "supports_system_prompt": True,
    }


def _constraints_elsewhere(rooms: Services, who: Principal, wanted: str) -> dict[str, Any]:
    for name, task, engine, healthy in _elsewhere(rooms):
        if name == wanted and healthy and may_use(who, name):
            return {
                "served_model_name": name,
                "engine_type": engine,
                "task": task,
                "context_size": None,
                "max_model_len": None,
                "max_tokens_default": MAX_TOKENS,
                "request_defaults": None,
                "supports_streaming": True,
                "supports_system_prompt": True,
            }
    raise ModelNotRunning(f"the model {wanted!r} is not running", model=wanted)


async def _trained_context(rooms: Services, model: Model) -> int | None:
    """The tokens of context that the files speak of; None where they do not, or cannot be read."""
    try:
        facts = (await rooms.models.resolve_files(model)).facts
    except OstlerError:
        return None
    return facts.context_length if facts else None


def _runs(rooms: Services, model: Model) -> bool:
    return not model.archived and rooms.instances.view(model.id).state is InstanceState.RUNNING


def _elsewhere(rooms: Services) -> list[tuple[str, str, str, bool]]:
    """Name, task, engine and health of each model that an upstream serves and ours do not hide."""
    found: dict[str, tuple[str, str, str, bool]] = {}
    for member in rooms.pools.members:
        for name in member.names:
            if rooms.models.find(name) is None:
                healthy = member.healthy is True or (name in found and found[name][3])
                found[name] = (name, member.task, member.engine, healthy)
    return [found[name] for name in sorted(found)]


def _status(name: str, task: str, *, running: bool) -> dict[str, Any]:
    state = "running" if running else "down"
    return {"name": name, "served_model_name": name, "task": task, "state": state}


def _running(name: str, task: str, engine: str) -> dict[str, Any]:
    return {"served_model_name": name, "task": task, "engine_type": engine, "state": "running"}
