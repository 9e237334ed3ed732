"""Usage: requests that went through the gateway, and their sums."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import AwareDatetime

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Listing, Out, PageOut, page_out, shape_of
from ostler.core.principals import Role
from ostler.usage.figures import Point, Spread
from ostler.usage.filters import RequestFilter
from ostler.usage.log import UsageTotal
from ostler.usage.moments import Bucket
from ostler.usage.records import RequestRecord

routes = router("usage")


@shape_of(RequestRecord)
class RequestOut(Out):
    """One request."""

    id: int


Since = Annotated[AwareDatetime | None, Query(description="Only from this time on, with a time zone.")]
Until = Annotated[AwareDatetime | None, Query(description="Only before this time, with a time zone.")]


KeyId = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
Task = Annotated[
    Literal["chat", "completions", "embeddings", "generate", "embed"] | None,
    Query(description="Only requests for this, by their path."),
]


async def _filter(
    model: Annotated[str | None, Query(max_length=300)] = None,
    principal: Annotated[str | None, Query(max_length=200)] = None,
    key_id: KeyId = None,
    user_id: KeyId = None,
    org_id: KeyId = None,
    request_id: Annotated[str | None, Query(max_length=200, description="Its x-request-id.")] = None,
    task: Task = None,
    status: Annotated[int | None, Query(ge=100, le=599)] = None,
    failed: bool | None = None,
    since: Since = None,
    until: Until = None,
) -> RequestFilter:
    return RequestFilter(
        model=model,
        principal=principal,
        key_id=key_id,
        user_id=user_id,
        org_id=org_id,
        request_id=request_id,
        task=task,
        status=status,
        failed=failed,
        since=since,
        until=until,
    )


Wanted = Annotated[RequestFilter, Depends(_filter)]
"""A route's parameter: which requests are meant."""


class LatencyOut(Out):
    """How long requests took: the whole of each, and of streams until the first piece."""

    request: Spread
    first_token: Spread


class SeriesOut(Out):
    """Sums by time, oldest first; a bucket that is not in the list had no requests."""

    bucket: Bucket
    points: list[Point]


@routes.get("/usage", response_model=PageOut[UsageTotal], **needs(Role.MANAGER))
async def add_up_usage(
    rooms: Rooms,
    who: Who,
    page: Listing,
    wanted: Wanted,
    by: Literal["model", "key", "user", "organisation", "day"] = "model",
) -> Any:
    """Requests and tokens by model, key, person, organisation or day."""
    return page_out(await rooms.usage.totals(by, wanted, **page.part))


@routes.get("/usage/latency", response_model=LatencyOut, **needs(Role.MANAGER))
async def measure_latency(rooms: Rooms, who: Who, wanted: Wanted) -> Any:
    """Mean, median and 95th percentile of exactly the requests that are meant."""
    return {
        "request": await rooms.figures.spread("duration_s", wanted),
        "first_token": await rooms.figures.spread("first_token_s", wanted),
    }


@routes.get("/usage/series", response_model=SeriesOut, **needs(Role.MANAGER))
async def add_up_by_time(rooms: Rooms, who: Who, wanted: Wanted, bucket: Bucket = "hour") -> Any:
    """Requests and tokens by minute, hour or day (UTC); of very many buckets the newest 5,000."""
    return {"bucket": bucket, "points": await rooms.figures.series(bucket, wanted)}


@routes.get("/requests", response_model=PageOut[RequestOut], **needs(Role.USER))
async def list_requests(rooms: Rooms, who: Who, page: Listing, wanted: Wanted) -> Any:
    """Requests, newest first. Below the role manager you see your own only."""
    if who.role < Role.MANAGER:
        wanted = replace(wanted, principal=who.name, key_id=who.key_id)
    order: dict[str, Any] = {"sort": page.sort, "descending": page.descending} if page.sort else {}
    found = await rooms.usage.find(wanted, **order, **page.part)
    return page_out(found, [{"id": stored.id, **asdict(stored.record)} for stored in found.items])
