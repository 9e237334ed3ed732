"""`GET /v1/models`, answered here: OpenAI's shape, with what Ostler knows beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ostler.access.names import may_use
from ostler.core.principals import Principal
from ostler.gateway.errors import ModelNotAllowed
from ostler.gateway.ports import EngineLeases, ModelNames
from ostler.models.index import ModelNotFound
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel

OWNER = "ostler"


def find_model(models: ModelNames, name: str, principal: Principal) -> Model:
    """The model that a request means. Raises ModelNotFound with near names, ModelNotAllowed."""
    model = models.find(name)
    if model is None or model.archived:
        near = [other for other in models.near(name) if _visible(models.find(other), principal)]
        hint = f"Did you mean {' or '.join(near)}?" if near else "See what there is: GET /v1/models"
        raise ModelNotFound(f"there is no model {name!r}", hint=hint, model=name, near=near)
    if principal.models is not None and not may_use(principal, *model.listed_as):
        raise ModelNotAllowed(f"{principal.name} may not use the model {name!r}", model=name)
    return model


def list_models(
    models: ModelNames,
    instances: EngineLeases,
    principal: Principal,
    externals: Iterable[ExternalModel] = (),
) -> dict[str, Any]:
    """Every model that the principal may use: ours, then those of upstreams that ours do not hide."""
    seen = [model for model in models.all() if _visible(model, principal)]
    rows = [describe(model, instances) for model in seen]
    rows += [
        _describe_external(external)
        for external in externals
        if models.find(external.name) is None and may_use(principal, external.name)
    ]
    return {"object": "list", "data": rows}


def _describe_external(model: ExternalModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "upstream",
        "aliases": [],
        "task": None,
        "engine": model.engine,
        "state": "running",
    }


def describe(model: Model | ExternalModel, instances: EngineLeases) -> dict[str, Any]:
    """One model: nothing in it says where an engine listens or where files are.

    The context length is that of the running engine for one request, under our name and under vLLM's.
    """
    if isinstance(model, ExternalModel):
        return _describe_external(model)
    seen = instances.view(model.id)
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": OWNER,
        "aliases": list(model.aliases),
        "task": model.task or None,
        "engine": model.engine,
        "state": str(seen.state),
        "context_length": seen.context_length,
        "max_model_len": seen.context_length,
    }


def _visible(model: Model | None, principal: Principal) -> bool:
    return model is not None and not model.archived and may_use(principal, *model.listed_as)
