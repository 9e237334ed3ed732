"""Instances: what runs now."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Query, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ostler.access.names import may_use
from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Listing, Out, PageOut, one_page, page_out, shape_of
from ostler.core.principals import Principal, Role
from ostler.core.queries import check_sort
from ostler.core.states import InstanceState
from ostler.instances.views import Failure, InstanceView
from ostler.models.records import Model
from ostler.usage.engine_numbers import EngineNumbers

routes = router("instances")

_SORTS = ("model_name", "state", "created_at", "ready_at", "last_used_at", "memory_bytes", "in_flight")


@shape_of(InstanceView)
class InstanceOut(Out):
    """One running engine, or what became of it. `url` is shown to administrators only."""

    failure: Failure | None = None


def view_for(who: Principal, view: InstanceView) -> InstanceOut:
    """An instance as this principal may see it."""
    shown = InstanceOut.model_validate(view)
    hidden: dict[str, Any] = {}
    if who.role < Role.ADMIN:
        hidden = {"url": None, "pid": None}
    if shown.failure and who.role < Role.MANAGER:
        hidden["failure"] = replace(shown.failure, log_tail=())
    return shown.model_copy(update=hidden)


def never_ran(model: Model) -> InstanceOut:
    """The instance of a model that is not stored yet."""
    state = InstanceState.STOPPED
    view = InstanceView(None, model.id, model.name, model.node, model.runtime, model.engine, state)
    return InstanceOut.model_validate(view)


@routes.get("/instances", response_model=PageOut[InstanceOut], **needs(Role.USER))
async def list_instances(
    rooms: Rooms,
    who: Who,
    page: Listing,
    state: Annotated[InstanceState | None, Query()] = None,
    active: Annotated[bool, Query(description="Only those that exist now; else failed ones too.")] = False,
) -> Any:
    """What runs, is being started or stopped, or has failed."""
    found = [
        view
        for view in rooms.instances.views()
        if may_use(who, *rooms.models.get(view.model_id).listed_as)
        and state in (None, view.state)
        and (view.state.is_active or not active)
        and (not page.search or page.search.lower() in view.model_name.lower())
    ]
    sort = page.sort or "model_name"
    check_sort("instances", sort, _SORTS)
    found.sort(key=lambda view: view.model_name)
    found.sort(key=lambda view: _sortable(getattr(view, sort)), reverse=page.descending)
    return page_out(page.cut(found).map(lambda view: view_for(who, view)))


@shape_of(EngineNumbers)
class NumbersOut(Out):
    """What an engine does now: requests, tokens, cache and latencies; null is not known."""


@routes.get("/instances/metrics", response_model=PageOut[NumbersOut], **needs(Role.MANAGER))
async def read_metrics(rooms: Rooms, who: Who, page: Listing) -> Any:
    """The numbers of every engine that exists now, asked of the engines themselves."""
    return page_out(page.cut(await rooms.numbers.read(rooms.instances.views())))


@routes.get("/instances/exposition", response_class=Response, **needs(Role.MANAGER))
async def expose_engines(rooms: Rooms, who: Who) -> Response:
    """What the running engines say at their own /metrics, for Prometheus; the label `model` says which."""
    told = await rooms.numbers.expositions(rooms.instances.views())
    return Response(told, headers={"Content-Type": CONTENT_TYPE_LATEST})


@routes.post("/instances/stop-all", response_model=PageOut[InstanceOut], **needs(Role.MANAGER))
async def stop_all(rooms: Rooms, who: Who) -> Any:
    """Stop every model that runs."""
    return one_page([view_for(who, view) for view in await rooms.instances.stop_all(who)])


def _sortable(value: Any) -> tuple[bool, Any]:
    """Values that are not there come first."""
    return (value is not None, value if value is not None else 0)
