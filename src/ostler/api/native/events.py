"""Events: live as a stream, and the history."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Header, Query, Response
from fastapi.responses import StreamingResponse

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Services, Who
from ostler.api.shapes import Listing, PageOut
from ostler.api.streaming import event_message, event_stream
from ostler.core.errors import InvalidField
from ostler.core.events import Event
from ostler.core.principals import Principal, Role

routes = router("events")

ABOUT_PEOPLE = frozenset({"key", "user", "setting"})
"""Subjects whose events only administrators see."""


@routes.get("/events", response_class=StreamingResponse, **needs(Role.USER))
async def stream_events(
    rooms: Rooms,
    who: Who,
    last_event_id: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="Begin with what was kept after this event.")
    ] = None,
    kind: Annotated[
        str | None, Query(max_length=100, description="Only this kind; 'job.' means all that begin so.")
    ] = None,
    header_id: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, le=2**63 - 1, description="As last_event_id.")
    ] = None,
) -> Response:
    """Events as they happen (server-sent events). Progress is not kept and carries no id."""
    after_id = header_id if header_id is not None else last_event_id
    messages = _messages(rooms, who, after_id, kind)
    return event_stream(messages, rooms.closing, rooms.settings.current.heartbeat_s)


@routes.get("/history", response_model=PageOut[Event], **needs(Role.USER))
async def list_history(
    rooms: Rooms,
    who: Who,
    page: Listing,
    kind: Annotated[
        str | None, Query(max_length=100, description="'instance.' means all that begin so.")
    ] = None,
    subject_type: Annotated[str | None, Query(max_length=50)] = None,
    subject_id: Annotated[str | None, Query(max_length=300)] = None,
    subject_name: Annotated[str | None, Query(max_length=300)] = None,
    actor: Annotated[str | None, Query(max_length=200)] = None,
) -> Any:
    """What happened, newest first; with sort=id oldest first."""
    if page.sort not in (None, "id", "at"):
        raise InvalidField("sort", f"events cannot be sorted by {page.sort!r}", hint="One of: id, -id.")
    events, total = await rooms.events.find(
        kind=kind,
        subject_type=subject_type,
        subject_id=subject_id,
        subject_name=subject_name,
        actor=actor,
        hide_subject_types=() if who.role >= Role.ADMIN else sorted(ABOUT_PEOPLE),
        newest_first=page.sort is None or page.descending,
        **page.part,
    )
    return {"items": events, "total": total, **page.part}


async def _messages(
    rooms: Services, who: Principal, after_id: int | None, kind: str | None
) -> AsyncGenerator[bytes]:
    async with aclosing(rooms.events.listen(after_id)) as events:
        async for event in events:
            if _is_for(who, event) and _matches(event, kind):
                data = {**asdict(event), "at": event.at.isoformat()}
                yield event_message(event.kind, data, event.id)


def _is_for(who: Principal, event: Event) -> bool:
    return who.role >= Role.ADMIN or event.subject_type not in ABOUT_PEOPLE


def _matches(event: Event, kind: str | None) -> bool:
    if not kind:
        return True
    return event.kind.startswith(kind) if kind.endswith(".") else event.kind == kind
