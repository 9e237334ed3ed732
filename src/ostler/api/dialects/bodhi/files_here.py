"""Which commit a snapshot means, and whether a file is there."""

from __future__ import annotations

from pathlib import PurePosixPath

from ostler.api.dialects.bodhi.errors import FileNotInCache
from ostler.api.services import Services
from ostler.hub.specs import check_relative, check_revision
from ostler.library.filesets import FileSet

LAYOUT = "hub-cache"


async def find_file(rooms: Services, repo: str, filename: str, snapshot: str) -> FileSet | None:
    """The model in the hub cache that a GGUF file belongs to; `snapshot` is a branch, a tag or a commit.

    Raises BadSpec for names that lead elsewhere.
    """
    check_relative(filename)
    check_revision(snapshot)
    found = await rooms.library.find(repo=repo, file=filename, revision=snapshot)
    if found is None or found.layout != LAYOUT or found.format != "gguf":
        return None
    return found


async def commit_of(rooms: Services, repo: str, filename: str, snapshot: str) -> str:
    """The commit of a model's file in the hub cache. Raises FileNotInCache, BadSpec."""
    found = await find_file(rooms, repo, filename, snapshot)
    projector = found.mmproj.name if found is not None and found.mmproj is not None else None
    if found is None or not found.revision or PurePosixPath(filename).name == projector:
        raise FileNotInCache(
            f"file {filename!r} not found in huggingface repo {repo!r}, snapshot {snapshot!r}",
            hint="Fetch it with POST /bodhi/v1/modelfiles/pull, or see GET /bodhi/v1/modelfiles.",
            repo=repo,
            filename=filename,
            snapshot=snapshot,
        )
    return found.revision
