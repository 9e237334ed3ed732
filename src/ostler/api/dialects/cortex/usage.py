"""Usage: what went through the gateway, listed, added up, by time, as quantiles and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, cast

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse

from ostler.api.dialects.base import Refused
from ostler.api.dialects.cortex.door import router
from ostler.api.dialects.cortex.words import IdFilter, part
from ostler.api.door import needs
from ostler.api.services import Rooms, Services
from ostler.core.errors import InvalidField
from ostler.core.paging import MAX_LIMIT
from ostler.core.principals import Role
from ostler.usage.figures import MAX_POINTS, filled
from ostler.usage.filters import RequestFilter, task_of
from ostler.usage.log import StoredRequest
from ostler.usage.moments import LENGTHS, Bucket

routes = router("usage")

DAY_H = 24
MONTH_H = 720
EXPORT_ROWS = 50_000
COLUMNS = (
    "id",
    "created_at",
    "key_id",
    "model",
    "task",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "latency_ms",
    "status_code",
    "req_id",
)
_STATUS = re.compile(r"([1-5])xx|([1-5]\d\d)", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def _filter(
    rooms: Rooms,
    hours: Annotated[int | None, Query(description=f"Only of the last hours, 1 to {MONTH_H}.")] = None,
    model: Annotated[str | None, Query(max_length=300)] = None,
    task: Annotated[str | None, Query(max_length=50)] = None,
    key_id: IdFilter = None,
    user_id: IdFilter = None,
    org_id: IdFilter = None,
    status: Annotated[str | None, Query(max_length=10, description="200, or 2xx.")] = None,
) -> RequestFilter:
    exact, by_class = _statuses(status)
    since = None if hours is None else rooms.clock.now() - timedelta(hours=_hours(hours))
    return RequestFilter(
        model=model or None,
        key_id=key_id,
        user_id=user_id,
        org_id=org_id,
        status=exact,
        status_class=by_class,
        task=task or None,
        since=since,
    )


Wanted = Annotated[RequestFilter, Depends(_filter)]


async def _of_a_day(rooms: Rooms, wanted: Wanted) -> RequestFilter:
    if wanted.since is not None:
        return wanted
    return replace(wanted, since=rooms.clock.now() - timedelta(hours=DAY_H))


OfADay = Annotated[RequestFilter, Depends(_of_a_day)]
"""The same, of the last 24 hours where no other number was asked for."""


@routes.get("/admin/usage", **needs(Role.ADMIN))
async def list_usage(rooms: Rooms, wanted: Wanted, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
    """Requests, newest first; at most 1,000."""
    page = await rooms.usage.find(wanted, **part(limit, offset, MAX_LIMIT))
    return [_item(stored) for stored in page.items]


@routes.get("/admin/usage/aggregate", **needs(Role.ADMIN))
async def aggregate_usage(rooms: Rooms, wanted: OfADay) -> list[dict[str, Any]]:
    """Sums by model, most requests first."""
    totals = await rooms.usage.totals("model", wanted, limit=MAX_LIMIT)
    return [
        {
            "model_name": total.name,
            "requests": total.requests,
            "prompt_tokens": total.prompt_tokens,
            "completion_tokens": total.completion_tokens,
            "total_tokens": total.prompt_tokens + total.completion_tokens,
        }
        for total in totals.items
    ]


@routes.get("/admin/usage/series", **needs(Role.ADMIN))
async def usage_series(rooms: Rooms, wanted: OfADay, bucket: str = "hour") -> list[dict[str, Any]]:
    """Sums by minute, hour or day, oldest first, empty ones too where that makes no endless list."""
    if bucket not in LENGTHS:
        raise Refused("invalid_bucket", f"there is no bucket {bucket[:50]!r}", hint="minute, hour or day.")
    length = cast(Bucket, bucket)
    points = await rooms.figures.series(length, wanted)
    assert wanted.since is not None
    points = filled(points, length, wanted.since, rooms.clock.now())[-MAX_POINTS:]
    return [
        {
            "ts": point.at.timestamp(),
            "requests": point.requests,
            "total_tokens": point.prompt_tokens + point.completion_tokens,
        }
        for point in points
    ]


@routes.get("/admin/usage/latency", **needs(Role.ADMIN))
async def usage_latency(rooms: Rooms, wanted: OfADay) -> dict[str, Any]:
    """Quantiles of how long requests took; of those that went well where no status was asked for."""
    if wanted.status is None and wanted.status_class is None:
        wanted = replace(wanted, status_class=2)
    spread = await rooms.figures.spread("duration_s", wanted)
    return {
        "p50_ms": (spread.p50_s or 0.0) * 1000,
        "p95_ms": (spread.p95_s or 0.0) * 1000,
        "avg_ms": (spread.mean_s or 0.0) * 1000,
        "samples": spread.samples,
    }


@routes.get("/admin/usage/ttft", **needs(Role.ADMIN))
async def usage_ttft(rooms: Rooms, wanted: OfADay) -> dict[str, Any]:
    """Quantiles of how long streams took to their first piece."""
    spread = await rooms.figures.spread("first_token_s", wanted)
    return {"p50_s": spread.p50_s or 0.0, "p95_s": spread.p95_s or 0.0, "samples": spread.samples}


@routes.get("/admin/usage/export", response_class=StreamingResponse, **needs(Role.ADMIN))
async def export_usage(rooms: Rooms, wanted: Wanted) -> StreamingResponse:
    """The newest 50,000 requests as CSV."""
    headers = {"Content-Disposition": "attachment; filename=usage_export.csv"}
    return StreamingResponse(_csv(rooms, wanted), media_type="text/csv", headers=headers)


async def _csv(rooms: Services, wanted: RequestFilter) -> AsyncIterator[str]:
    yield _lines([COLUMNS])
    rows: list[tuple[Any, ...]] = []
    async for stored in rooms.usage.walk(wanted, limit=EXPORT_ROWS):
        item = _item(stored)
        rows.append(tuple(_cell(item["model_name" if name == "model" else name]) for name in COLUMNS))
        if len(rows) == 500:
            yield _lines(rows)
            rows = []
    yield _lines(rows)


def _lines(rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _item(stored: StoredRequest) -> dict[str, Any]:
    record = stored.record
    prompt, completion = record.prompt_tokens or 0, record.completion_tokens or 0
    return {
        "id": stored.id,
        "key_id": record.key_id,
        "user_id": record.user_id,
        "org_id": record.org_id,
        "model_name": record.model_name,
        "task": task_of(record.path) or record.path,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "latency_ms": round(record.duration_s * 1000),
        "status_code": record.status,
        "req_id": record.request_id or "",
        "created_at": record.at.timestamp(),
    }


def _hours(asked: int) -> int:
    return max(1, min(asked, MONTH_H))


def _statuses(text: str | None) -> tuple[int | None, int | None]:
    """An exact status or a class of them. Raises InvalidField."""
    if not text:
        return None, None
    found = _STATUS.fullmatch(text.strip())
    if found is None:
        raise InvalidField("status", f"{text!r} is no status", hint="Such as 200, or 2xx")
    return (None, int(found[1])) if found[1] else (int(found[2]), None)
