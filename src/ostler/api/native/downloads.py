"""Downloads: what a repo's files would take, and fetching them as a job."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.native.jobs import JobOut
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Out
from ostler.core.principals import Role

routes = router("downloads")


class SpecIn(Body):
    """Which files of the hub: `org/repo`, with `:` and a quantization or a file, with `@` and a revision."""

    spec: str = Field(max_length=500, examples=["org/repo:Q4_K_M"])


class PlannedFileOut(Out):
    """One file to fetch."""

    path: str
    size_bytes: int
    sha256: str | None = None


class PlanOut(Out):
    """What a download would fetch and whether it has room."""

    repo: str
    commit: str
    files: list[PlannedFileOut]
    total_bytes: int
    have_bytes: int
    need_bytes: int
    free_bytes: int
    fits_disk: bool
    target_layout: str
    gated: bool | str | None = None


@routes.post("/downloads/plan", response_model=PlanOut, **needs(Role.POWER_USER))
async def plan_download(rooms: Rooms, who: Who, body: SpecIn) -> Any:
    """Ask the hub what a download would fetch; nothing is fetched."""
    return await rooms.downloads.plan(body.spec, principal=who)


@routes.post("/downloads", response_model=JobOut, status_code=202, **needs(Role.POWER_USER))
async def start_download(rooms: Rooms, who: Who, body: SpecIn) -> Any:
    """Fetch files as a job; asking for the same files again gives the same job."""
    return await rooms.downloads.pull(body.spec, principal=who)
