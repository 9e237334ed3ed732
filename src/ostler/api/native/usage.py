"""Usage: requests that went through the gateway, and their sums."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AwareDatetime

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Listing, Out, PageOut, page_out, shape_of
from ostler.core.principals import Role
from ostler.usage.log import UsageTotal
from ostler.usage.records import RequestRecord

routes = router("usage")


@shape_of(RequestRecord)
class RequestOut(Out):
    """One request."""

    id: int


Since = Annotated[AwareDatetime | None, Query(description="Only from this time on, with a time zone.")]
Until = Annotated[AwareDatetime | None, Query(description="Only before this time, with a time zone.")]


@routes.get("/usage", response_model=PageOut[UsageTotal], **needs(Role.MANAGER))
async def add_up_usage(
    rooms: Rooms,
    who: Who,
    page: Listing,
    by: Literal["model", "key", "user", "organisation", "day"] = "model",
    since: Since = None,
    until: Until = None,
) -> Any:
    """Requests and tokens by model, key, person, organisation or day."""
    return page_out(await rooms.usage.totals(by, since=since, until=until, **page.part))


@routes.get("/requests", response_model=PageOut[RequestOut], **needs(Role.USER))
async def list_requests(
    rooms: Rooms,
    who: Who,
    page: Listing,
    model: Annotated[str | None, Query(max_length=300)] = None,
    principal: Annotated[str | None, Query(max_length=200)] = None,
    key_id: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    user_id: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    org_id: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    status: Annotated[int | None, Query(ge=100, le=599)] = None,
    failed: bool | None = None,
    since: Since = None,
    until: Until = None,
) -> Any:
    """Requests, newest first. Below the role manager you see your own only."""
    if who.role < Role.MANAGER:
        principal, key_id = who.name, who.key_id
    order: dict[str, Any] = {"sort": page.sort, "descending": page.descending} if page.sort else {}
    found = await rooms.usage.find(
        model=model,
        principal=principal,
        key_id=key_id,
        user_id=user_id,
        org_id=org_id,
        status=status,
        failed=failed,
        since=since,
        until=until,
        **order,
        **page.part,
    )
    return page_out(found, [{"id": stored.id, **asdict(stored.record)} for stored in found.items])
