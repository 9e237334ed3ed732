"""Downloads: what a repo's files would take, and fetching them as a job."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.native.jobs import JobOut
from ostler.api.services import Rooms, Services, Who
from ostler.api.shapes import Body, Out
from ostler.core.errors import InvalidField
from ostler.core.principals import Role
from ostler.models.records import Model

routes = router("downloads")


class SpecIn(Body):
    """Which files of the hub: `org/repo`, with `:` and a quantization or a file, with `@` and a revision.

    Or the name of a model, whose files they are: the HF_TOKEN of its own environment is sent for them.
    """

    spec: str | None = Field(None, max_length=500, examples=["org/repo:Q4_K_M"])
    model: str | None = Field(None, max_length=300)


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
    spec, model = _wanted(rooms, body)
    return await rooms.downloads.plan(spec, principal=who, token=model.hub_token if model else None)


@routes.post("/downloads", response_model=JobOut, status_code=202, **needs(Role.POWER_USER))
async def start_download(rooms: Rooms, who: Who, body: SpecIn) -> Any:
    """Fetch files as a job; asking for the same files again gives the same job."""
    spec, model = _wanted(rooms, body)
    return await rooms.downloads.pull(spec, principal=who, for_model=model.id if model else None)


def _wanted(rooms: Services, body: SpecIn) -> tuple[str, Model | None]:
    """What to fetch, and the model that it is for. Raises InvalidField, ModelNotFound."""
    if body.spec and not body.model:
        return body.spec, None
    if body.spec or not body.model:
        raise InvalidField("spec", "give a spec or a model", hint='Such as {"spec": "org/repo:Q4_K_M"}')
    model = rooms.models.get(body.model)
    if model.source.kind != "hub":
        raise InvalidField("model", f"the files of {model.name} are not from the hub", hint="Give a spec.")
    return model.source.label, model
