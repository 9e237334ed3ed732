"""The hub: searching, and what a repo holds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path, Query

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Out, PageOut
from ostler.core.principals import Role

routes = router("hub")


class SearchHitOut(Out):
    """One repo found."""

    repo: str
    downloads: int
    likes: int
    tags: list[str]
    pipeline_tag: str | None
    license: str | None
    last_modified: datetime | None
    gated: str | None
    private: bool
    gguf: bool
    parameters: int | None = None


class HubFileOut(Out):
    """One file of a repo."""

    path: str
    size_bytes: int
    sha256: str | None


class VariantOut(Out):
    """One model among those of a repo; `tag` is what comes after the colon of a spec."""

    tag: str
    quantization: str | None
    files: list[HubFileOut]
    size_bytes: int
    format: str
    missing: list[str]


class RepoOut(Out):
    """A repo at one commit."""

    repo: str
    commit: str
    revision: str
    gated: str | None
    private: bool
    downloads: int
    likes: int
    tags: list[str]
    pipeline_tag: str | None
    license: str | None
    last_modified: datetime | None
    files: list[HubFileOut]
    variants: list[VariantOut]
    total_bytes: int
    renamed_from: str | None = None


@routes.get("/hub/search", response_model=PageOut[SearchHitOut], **needs(Role.POWER_USER))
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
