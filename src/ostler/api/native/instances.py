"""Instances: what runs now."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query

from ostler.access.names import may_use
from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Listing, Out, PageOut, page_out
from ostler.core.principals import Principal, Role
from ostler.core.queries import check_sort
from ostler.core.states import InstanceState

if TYPE_CHECKING:
    from ostler.instances.views import InstanceView

routes = router("instances")

_SORTS = ("model_name", "state", "created_at", "ready_at", "last_used_at", "memory_bytes", "in_flight")


class FailureOut(Out):
    """Why it failed: the last lines of the log are shown to managers only."""

    reason: str
    hint: str | None
    diagnosis: str | None
    exit_code: int | None
    oom_killed: bool
    log_tail: list[str]


class InstanceOut(Out):
    """One running engine, or what became of it. `url` is shown to administrators only."""

    id: int | None
    model_id: int
    model_name: str
    node: str
    runtime: str
    engine: str
    state: InstanceState
    reason: str | None = None
    hint: str | None = None
    failure: FailureOut | None = None
    url: str | None = None
    spec_digest: str | None = None
    drift: bool = False
    pid: int | None = None
    cause: str | None = None
    actor: str | None = None
    created_at: datetime | None = None
    ready_at: datetime | None = None
    load_seconds: float | None = None
    restarts: int = 0
    in_flight: int = 0
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    memory_bytes: int | None = None


def view_for(who: Principal, view: InstanceView) -> InstanceOut:
    """An instance as this principal may see it."""
    shown = InstanceOut.model_validate(view)
    hidden: dict[str, Any] = {}
    if who.role < Role.ADMIN:
        hidden = {"url": None, "pid": None}
    if shown.failure and who.role < Role.MANAGER:
        hidden["failure"] = shown.failure.model_copy(update={"log_tail": []})
    return shown.model_copy(update=hidden)


@routes.get("/instances", response_model=PageOut[InstanceOut], **needs(Role.USER))
async def list_instances(
    rooms: Rooms,
    who: Who,
    page: Listing,
    state: Annotated[InstanceState | None, Query()] = None,
    active: Annotated[bool, Query(description="Only those that exist now; else failed ones too.")] = False,
) -> Any:
    """What runs, is being started or stopped, or has failed."""
    shown = [
        view_for(who, view)
        for view in rooms.instances.views()
        if may_use(who, view.model_name)
        and state in (None, view.state)
        and (view.state.is_active or not active)
        and (not page.search or page.search.lower() in view.model_name.lower())
    ]
    sort = page.sort or "model_name"
    check_sort("instances", sort, _SORTS)
    shown.sort(key=lambda view: view.model_name)
    shown.sort(key=lambda view: _sortable(getattr(view, sort)), reverse=page.descending)
    return page_out(page.cut(shown))


@routes.post("/instances/stop-all", response_model=PageOut[InstanceOut], **needs(Role.MANAGER))
async def stop_all(rooms: Rooms, who: Who) -> Any:
    """Stop every model that runs."""
    shown = [view_for(who, view) for view in await rooms.instances.stop_all(who)]
    return {"items": shown, "total": len(shown), "limit": max(1, len(shown)), "offset": 0}


def _sortable(value: Any) -> tuple[bool, Any]:
    """Values that are not there come first."""
    return (value is not None, value if value is not None else 0)
