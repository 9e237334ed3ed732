"""Router mode, in which one llama-server loads models by itself: refused, as it is not run here."""

from __future__ import annotations

from typing import Any

from ostler.api.dialects.llamactl.door import LlamactlRouter, management
from ostler.api.dialects.llamactl.instances import Name, instance
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import Unsupported
from ostler.core.principals import Principal

routes = LlamactlRouter("router mode")

ROOT = "/api/v1/llama-cpp"


class NoRouterMode(Unsupported):
    """One engine serves one model here."""

    hint = "Make one instance of each model: they are started and stopped as they are asked for."


@routes.at("GET", f"{ROOT}/{{name:path}}/models", **management())
async def list_router_models(rooms: Rooms, who: Who, name: Name) -> dict[str, Any]:
    """The models of an instance: the one that it serves. Raises NoRouterMode where it names none."""
    model = instance(rooms, who, name)
    if model.source.kind == "none":
        raise _refusal(model.name)
    state = rooms.instances.view(model.id).state
    status = {"value": "loaded" if state.value == "running" else "unloaded"}
    entry = {"id": model.name, "object": "model", "owned_by": "llamacpp", "status": status}
    return {"object": "list", "data": [{**entry, "created": int(model.created_at.timestamp())}]}


@routes.at("POST", f"{ROOT}/{{name}}/models/{{model:path}}/load", **management())
async def load_router_model(rooms: Rooms, who: Who, name: Name, model: Name) -> None:
    """Refused."""
    _refuse(rooms, who, name)


@routes.at("POST", f"{ROOT}/{{name}}/models/{{model:path}}/unload", **management())
async def unload_router_model(rooms: Rooms, who: Who, name: Name, model: Name) -> None:
    """Refused."""
    _refuse(rooms, who, name)


def _refuse(rooms: Services, who: Principal, name: str) -> None:
    raise _refusal(instance(rooms, who, name).name)


def _refusal(name: str) -> NoRouterMode:
    return NoRouterMode(f"{name} does not load models by itself: one engine serves one model here")
