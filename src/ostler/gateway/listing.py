"""`GET /v1/models`, answered here: OpenAI's shape, with what Ostler knows beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ostler.access.names import may_use
from ostler.core.principals import Principal
from ostler.gateway.errors import ModelNotAllowed
from ostler.gateway.ports import EngineLeases, ModelNames
from ostler.models.automatic import AutomaticModel
from ostler.models.index import ModelNotFound
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel

OWNER = "ostler"


def find_model(models: ModelNames, name: str, principal: Principal, others: Iterable[str] = ()) -> Model:
    """The stored model that a request means.

    Raises ModelNotFound with near names, also of `others`, and ModelNotAllowed.
    """
    model = models.find(name)
    if model is None or model.archived:
        near = [other for other in models.near(name) if _visible(models.find(other), principal)]
        near = [*near, *(other for other in others if may_use(principal, other))][:3]
        hint = f"Did you mean {' or '.join(near)}?" if near else "See what there is: GET /v1/models"
        raise ModelNotFound(f"there is no model {name!r}", hint=hint, model=name, near=near)
    refuse_unless_allowed(principal, *model.listed_as)
    return model


def refuse_unless_allowed(principal: Principal, *names: str) -> None:
    """Raise ModelNotAllowed where the principal may not use a model that has these names."""
    if not may_use(principal, *names):
        raise ModelNotAllowed(f"{principal.name} may not use the model {names[0]!r}", model=names[0])


def list_models(
    models: ModelNames,
    instances: EngineLeases,
    principal: Principal,
    automatic: Iterable[AutomaticModel] = (),
    externals: Iterable[ExternalModel] = (),
) -> dict[str, Any]:
    """Every model that the principal may use: stored ones, then automatic ones, then those of upstreams that
    none of ours hides.
    """
    rows = [describe(model, instances) for model in models.all() if _visible(model, principal)]
    here = [model for model in automatic if may_use(principal, model.name)]
    rows += [describe(model, instances) for model in here]
    ours = {model.name for model in here}
    rows += [
        describe(external, instances)
        for external in externals
        if models.find(external.name) is None
        and external.name not in ours
        and may_use(principal, external.name)
    ]
    return {"object": "list", "data": rows}


def describe(model: Model | AutomaticModel | ExternalModel, instances: EngineLeases) -> dict[str, Any]:
    """One model: nothing in it says where an engine listens or where files are.

    The context length is that of the running engine for one request, under our name and under vLLM's.
    """
    if isinstance(model, ExternalModel):
        return _row(model.name, 0, model.engine, "running", owner="upstream")
    if isinstance(model, AutomaticModel):
        created = int(model.file_set.modified_at.timestamp())
        return {**_row(model.name, created, model.engine, "stopped"), "automatic": True}
    seen = instances.view(model.id)
    return {
        **_row(model.name, int(model.created_at.timestamp()), model.engine, str(seen.state)),
        "aliases": list(model.aliases),
        "task": model.task or None,
        "context_length": seen.context_length,
        "max_model_len": seen.context_length,
    }


def _row(name: str, created: int, engine: str, state: str, owner: str = OWNER) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": owner,
        "aliases": [],
        "task": None,
        "engine": engine,
        "state": state,
    }


def _visible(model: Model | None, principal: Principal) -> bool:
    return model is not None and not model.archived and may_use(principal, *model.listed_as)
