"""Health, readiness and metrics: what probes and Prometheus ask for."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from ostler.api.door import Door, needs, open_to_all
from ostler.api.metrics import exposition
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import OstlerError
from ostler.core.principals import Role

CHECK_TIMEOUT_S = 5.0

routes = APIRouter(tags=["health"], route_class=Door)


class HealthOut(BaseModel):
    """The process is alive and answers."""

    status: str
    version: str


class CheckOut(BaseModel):
    """One check; `reason` says what is wrong."""

    ok: bool
    reason: str | None = None


class ReadyOut(BaseModel):
    """Whether the server can do its work now."""

    status: str
    checks: dict[str, CheckOut]


class _NotReady(Exception):
    """A check failed; its text may be shown to anybody."""


@routes.head("/health", include_in_schema=False, **open_to_all())
@routes.get("/health", response_model=HealthOut, **open_to_all())
async def health(rooms: Rooms) -> Any:
    """Alive. Needs no key."""
    return {"status": "ok", "version": rooms.version}


@routes.head("/ready", include_in_schema=False, **open_to_all())
@routes.get("/ready", response_model=ReadyOut, responses={503: {"model": ReadyOut}}, **open_to_all())
async def ready(rooms: Rooms, response: Response) -> Any:
    """Ready: the database answers, an engine is there, the data folder can be written. Needs no key."""
    checks = {
        "database": await _check(_database, rooms),
        "engines": await _check(_engines, rooms),
        "disk": await _check(_disk, rooms),
    }
    well = all(check.ok for check in checks.values()) and not rooms.closing.is_set()
    response.status_code = 200 if well else 503
    return {"status": "ready" if well else "not ready", "checks": checks}


@routes.get("/metrics", response_class=Response, **needs(Role.USER))
async def metrics(rooms: Rooms, who: Who) -> Response:
    """Numbers for Prometheus."""
    return Response(exposition(rooms), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _check(check: Callable[[Services], Awaitable[None]], rooms: Services) -> CheckOut:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check(rooms)
    except TimeoutError:
        return CheckOut(ok=False, reason=f"no answer within {CHECK_TIMEOUT_S:g} s")
    except (_NotReady, OstlerError) as error:
        return CheckOut(ok=False, reason=str(error))
    return CheckOut(ok=True)


async def _database(rooms: Services) -> None:
    try:
        await rooms.database.ping()
    except (SQLAlchemyError, OSError) as error:
        raise _NotReady(f"the database does not answer ({type(error).__name__})") from error


async def _engines(rooms: Services) -> None:
    if not list(rooms.engines):
        raise _NotReady("there is no engine")
    problems = []
    for name, runtime in rooms.runtimes.items():
        checked = await runtime.check()
        if checked.ok:
            return
        problems.append(f"{name}: {checked.reason}")
    raise _NotReady("no runtime works here: " + "; ".join(problems))


async def _disk(rooms: Services) -> None:
    folder = rooms.settings.current.data_dir
    if not await asyncio.to_thread(os.access, folder, os.W_OK):
        raise _NotReady("the data folder cannot be written")
    if (await asyncio.to_thread(shutil.disk_usage, folder)).free < 16 * 1024 * 1024:
        raise _NotReady("the disk of the data folder is full")
