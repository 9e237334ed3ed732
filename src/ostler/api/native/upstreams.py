"""Upstreams: engines elsewhere that this server routes to and does not start."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Listing, Out, PageOut, page_out
from ostler.core.principals import Role
from ostler.upstreams.entries import External
from ostler.upstreams.pools import Member

routes = router("upstreams")

EntryName = Annotated[str, Path(max_length=300, description="The model's name.")]


class ProbeOut(Out):
    """One look at an upstream; `status` null: it could not be reached."""

    at: datetime
    ok: bool
    status: int | None
    latency_s: float


class UpstreamOut(Out):
    """One server elsewhere. `models` are those that it serves; `breaker` is closed, open or half_open."""

    url: str
    engine: str
    task: str
    healthy: bool | None
    models: list[str]
    in_flight: int
    breaker: str
    failures: int
    retry_after_s: float
    history: list[ProbeOut]


class EntryIn(Body):
    """A model that a server elsewhere serves. `url` is its address without `/v1`."""

    name: str = Field(max_length=300)
    url: str = Field(max_length=2_000, examples=["http://gpu-2:8000"])
    engine: str = "vllm"
    task: str = "generate"


@routes.get("/upstreams", response_model=PageOut[UpstreamOut], **needs(Role.MANAGER))
async def list_upstreams(rooms: Rooms, who: Who, page: Listing) -> Any:
    """Every server elsewhere, by address, with what the last looks said."""
    return page_out(page.cut([upstream_out(member) for member in rooms.pools.members]))


@routes.post("/upstreams/look", response_model=PageOut[UpstreamOut], **needs(Role.MANAGER))
async def look_at_upstreams(rooms: Rooms, who: Who, page: Listing) -> Any:
    """Look at every server elsewhere now."""
    await rooms.pools.look()
    return page_out(page.cut([upstream_out(member) for member in rooms.pools.members]))


@routes.get("/upstreams/models", response_model=PageOut[External], **needs(Role.MANAGER))
async def list_entries(rooms: Rooms, who: Who, page: Listing) -> Any:
    """The models that were entered by hand."""
    return page_out(page.cut(rooms.externals.all()))


@routes.post("/upstreams/models", response_model=External, status_code=201, **needs(Role.ADMIN))
async def add_entry(rooms: Rooms, who: Who, body: EntryIn) -> Any:
    """Enter a model of a server elsewhere; requests for its name go there."""
    return await rooms.externals.add(body.name, body.url, body.engine, body.task, who)


@routes.delete("/upstreams/models/{name:path}", response_model=External, **needs(Role.ADMIN))
async def remove_entry(rooms: Rooms, who: Who, name: EntryName) -> Any:
    """Take an entry out."""
    return await rooms.externals.remove(name, who)


def upstream_out(member: Member) -> dict[str, Any]:
    """What is shown of an upstream."""
    breaker = member.breaker
    return {
        "url": member.url,
        "engine": member.engine,
        "task": member.task,
        "healthy": member.healthy,
        "models": sorted(member.names),
        "in_flight": member.in_flight,
        "breaker": breaker.state,
        "failures": breaker.failures,
        "retry_after_s": breaker.retry_after_s,
        "history": [
            {"at": probe.at, "ok": probe.ok, "status": probe.status, "latency_s": probe.latency_s}
            for probe in member.history
        ],
    }
