"""Usage: requests that went through the gateway, and their sums."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AwareDatetime

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Listing, Out, PageOut, page_out
from ostler.core.principals import Role

routes = router("usage")


class TotalOut(Out):
    """The sum over one model, key or day; `first_token_s` and `duration_s` are means."""

    name: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float | None
    duration_s: float


class RequestOut(Out):
    """One request."""

    id: int
    at: datetime
    model_id: int | None
    model_name: str
    instance_id: int | None
    key_id: int | None
    principal: str
    path: str
    status: int
    streamed: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    first_token_s: float | None
    duration_s: float
    error: str | None


Since = Annotated[AwareDatetime | None, Query(description="Only from this time on, with a time zone.")]
Until = Annotated[AwareDatetime | None, Query(description="Only before this time, with a time zone.")]


@routes.get("/usage", response_model=PageOut[TotalOut], **needs(Role.MANAGER))
async def add_up_usage(
    rooms: Rooms,
    who: Who,
    page: Listing,
    by: Literal["model", "key", "day"] = "model",
    since: Since = None,
    until: Until = None,
) -> Any:
    """Requests and tokens by model, key or day."""
    return page_out(await rooms.usage.totals(by, since=since, until=until, **page.part))


@routes.get("/requests", response_model=PageOut[RequestOut], **needs(Role.USER))
async def list_requests(
    rooms: Rooms,
    who: Who,
    page: Listing,
    model: Annotated[str | None, Query(max_length=300)] = None,
    principal: Annotated[str | None, Query(max_length=200)] = None,
    key_id: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
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
        status=status,
        failed=failed,
        since=since,
        until=until,
        **order,
        **page.part,
    )
    return page_out(
        found,
        [
            {"id": stored.id, **{name: getattr(stored.record, name) for name in stored.record.__slots__}}
            for stored in found.items
        ],
    )
