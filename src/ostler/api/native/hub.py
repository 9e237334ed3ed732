"""The hub: searching, and what a repo holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Query

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Out, PageOut, shape_of
from ostler.core.principals import Role
from ostler.hub import RemoteModel
from ostler.hub.records import HubFile, RepoInfo, SearchHit, Variant
from ostler.hub.specs import MAX_SPEC_LENGTH, parse_spec

routes = router("hub")


@shape_of(HubFile, without=("blob_id", "lfs"))
class HubFileOut(Out):
    """One file of a repo."""


@shape_of(Variant)
class VariantOut(Out):
    """One model among those of a repo; `tag` is what comes after the colon of a spec."""

    files: list[HubFileOut]


class RemoteFileOut(Out):
    """One file that belongs to the model."""

    path: str
    size_bytes: int


@shape_of(RemoteModel, without=("gguf", "mmproj_header", "safetensors", "config"))
class RemoteModelOut(Out):
    """A model that is not downloaded, as the headers of its files describe it."""

    files: list[RemoteFileOut]


@shape_of(RepoInfo, without=("mmprojs",))
class RepoOut(Out):
    """A repo at one commit."""

    files: list[HubFileOut]
    variants: list[VariantOut]
    total_bytes: int


@routes.get("/hub/search", response_model=PageOut[SearchHit], **needs(Role.POWER_USER))
async def search_hub(
    rooms: Rooms,
    who: Who,
    q: Annotated[str, Query(min_length=1, max_length=200, description="Words to search for.")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    gguf: Annotated[bool | None, Query(description="Only repos that hold GGUF files.")] = None,
    sort: Annotated[
        Literal["downloads", "likes", "last_modified", "created_at", "trending_score"], Query()
    ] = "downloads",
) -> Any:
    """Repos of the hub that fit the words, best first."""
    hits = await rooms.hub.search(q, limit=limit, filter_gguf=gguf, sort=sort)
    return {"items": hits, "total": len(hits), "limit": limit, "offset": 0}


@routes.get("/hub/inspect", response_model=RemoteModelOut, **needs(Role.POWER_USER))
async def inspect_spec(
    rooms: Rooms,
    who: Who,
    spec: Annotated[str, Query(max_length=MAX_SPEC_LENGTH, description="Such as org/repo:Q4_K_M.")],
) -> Any:
    """What the headers of a model on the hub say. Nothing is downloaded: parts of files are read."""
    return await rooms.hub.inspect(parse_spec(spec, endpoint=rooms.hub.endpoint))


@routes.get("/hub/repos/{org}/{repo}", response_model=RepoOut, **needs(Role.POWER_USER))
async def show_repo(
    rooms: Rooms,
    who: Who,
    org: Annotated[str, Path(max_length=100)],
    repo: Annotated[str, Path(max_length=100)],
    revision: Annotated[str | None, Query(max_length=200)] = None,
) -> Any:
    """What a repo holds, with the variants that can be pulled."""
    return await rooms.hub.repo(f"{org}/{repo}", revision)
