"""Model files: every GGUF in the hub cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query

from ostler.api.dialects.bodhi.door import Paged, router
from ostler.api.dialects.bodhi.entries import MAIN, in_cache
from ostler.api.dialects.bodhi.errors import FileNotInCache
from ostler.api.dialects.bodhi.files_here import LAYOUT, find_file
from ostler.api.door import needs
from ostler.api.native.model_files import in_use
from ostler.api.services import Rooms, Services, Who
from ostler.core.principals import Role
from ostler.hub.specs import check_repo

routes = router("modelfiles")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file in one snapshot."""

    repo: str
    filename: str
    snapshot: str
    size: int
    path: str

    def to_json(self) -> dict[str, Any]:
        """BodhiApp's object, with the commit under both of its names."""
        return {
            "repo": self.repo,
            "filename": self.filename,
            "snapshot_id": self.snapshot,
            "snapshot": self.snapshot,
            "size": self.size,
            "path": self.path,
            "model_params": {},
        }


_SORTS: Mapping[str, Callable[[ModelFile], tuple[Any, ...]]] = {
    "repo": lambda file: (file.repo, file.filename, file.snapshot),
    "filename": lambda file: (file.filename, file.repo, file.snapshot),
    "snapshot": lambda file: (file.snapshot, file.repo, file.filename),
    "snapshot_id": lambda file: (file.snapshot, file.repo, file.filename),
    "size": lambda file: (file.size, file.repo, file.filename, file.snapshot),
}


@routes.get("/bodhi/v1/modelfiles", **needs(Role.USER))
async def list_model_files(rooms: Rooms, who: Who, page: Paged) -> dict[str, Any]:
    """Every GGUF file, once for each snapshot that has it. Sort by repo, filename, snapshot, size."""
    files = await _all(rooms)
    files.sort(key=_SORTS.get(page.sort or "repo", _SORTS["repo"]), reverse=page.descending)
    return page.answer([file.to_json() for file in page.cut(files)], len(files))


@routes.delete("/bodhi/v1/modelfiles", **needs(Role.MANAGER))
async def delete_model_file(
    rooms: Rooms,
    who: Who,
    repo: Annotated[str, Query(max_length=200)],
    filename: Annotated[str, Query(max_length=1_000)],
    snapshot: Annotated[str, Query(max_length=200)] = MAIN,
) -> dict[str, Any]:
    """Delete a model's files from the cache; not while a model that uses them is not stopped (409)."""
    found = await find_file(rooms, check_repo(repo), filename, snapshot)
    if found is None:
        raise FileNotInCache(f"file {filename!r} not found in huggingface repo {repo!r}", repo=repo)
    plan = await rooms.library.plan_delete(found.id, await in_use(rooms))
    return (await rooms.library.delete(plan, who)).to_json()


async def _all(rooms: Services) -> list[ModelFile]:
    found: dict[str, ModelFile] = {}
    for files in await rooms.library.recent():
        if files.layout != LAYOUT or files.format != "gguf":
            continue
        for file in files.files:
            path = str(file.path)
            if path not in found and (place := in_cache(path)) is not None:
                found[path] = ModelFile(*place, file.size_bytes, path)
    return list(found.values())
