"""Merging a GGUF's parts into one file, and splitting one file into parts."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.native.files import readable_path
from ostler.api.native.jobs import JobOut
from ostler.api.native.meant import meant
from ostler.api.services import Rooms, Services, Who
from ostler.api.shapes import Body
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from ostler.library.filesets import FileSet

routes = router("files")


class ReshapeIn(Body):
    """Which GGUF: exactly one of `model` (a name), `path` and `file_set` (an id).

    `to` is the folder for the new files, by default Ostler's own; `name` is without its ending.
    """

    model: str | None = Field(None, max_length=300)
    path: str | None = Field(None, max_length=4_096)
    file_set: str | None = Field(None, max_length=200)
    to: str | None = Field(None, max_length=4_096)
    name: str | None = Field(None, min_length=1, max_length=200)


class SplitIn(ReshapeIn):
    """A limit for each part: bytes of tensor data, or a number of tensors."""

    max_bytes: int | None = Field(None, ge=1, le=2**53)
    max_tensors: int | None = Field(None, ge=1, le=2**31)


@routes.post("/files/merge", response_model=JobOut, status_code=202, **needs(Role.MANAGER))
async def merge_files(rooms: Rooms, who: Who, body: ReshapeIn) -> Any:
    """Make one file of a model's parts, as a job. The parts stay as they are."""
    files = await _files(rooms, who, body)
    return await rooms.reshaping.merge(files, who, to=_folder(body), name=body.name)


@routes.post("/files/split", response_model=JobOut, status_code=202, **needs(Role.MANAGER))
async def split_files(rooms: Rooms, who: Who, body: SplitIn) -> Any:
    """Make parts of a model in one file, as a job. The file stays as it is."""
    files = await _files(rooms, who, body)
    return await rooms.reshaping.split(
        files,
        who,
        max_bytes=body.max_bytes,
        max_tensors=body.max_tensors,
        to=_folder(body),
        name=body.name,
    )


async def _files(rooms: Services, who: Principal, body: ReshapeIn) -> FileSet:
    given = [name for name in ("model", "path", "file_set") if getattr(body, name) is not None]
    if len(given) != 1:
        raise InvalidField("model", "say which model: exactly one of model, path and file_set")
    if body.model is not None:
        return await rooms.models.resolve_files(await meant(rooms, who, body.model))
    if body.path is not None:
        return await rooms.library.inspect(await readable_path(rooms, who, body.path))
    return await rooms.library.get(str(body.file_set))


def _folder(body: ReshapeIn) -> FilePath | None:
    return FilePath(body.to) if body.to is not None else None
