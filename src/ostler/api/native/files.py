"""Files: what is on disk, over all roots; reading a header; deleting by name."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.native.model_files import in_use, uses
from ostler.api.services import Rooms, Services, Who
from ostler.api.shapes import Body, Listing, Out, PageOut, page_out, shape_of
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from ostler.engines.recommending import Recommendation, recommend
from ostler.library.filesets import FileSet
from ostler.library.folders import Folder
from ostler.library.roots import Root

routes = router("files")

FileSetId = Annotated[str, Path(max_length=200)]
RootId = Annotated[int, Path(ge=1, le=2**63 - 1)]


@shape_of(FileSet)
class FileSetOut(Out):
    """The files that load as one thing, with what their headers say and which models use them."""

    used_by: list[str] = Field(description="Names of the models that use these files.")
    recommendation: Recommendation = Field(description="Which engine serves them, and why.")


class InspectIn(Body):
    """A file or folder on the server's disk, as an absolute path."""

    path: str = Field(max_length=4_096)


class RootIn(Body):
    """A folder to list too. Ostler never changes anything in it, whatever the layout."""

    path: str = Field(max_length=4_096)
    layout: str = "folder"


class DeletedOut(Out):
    """What was deleted, and what of the file set was kept for which reason."""

    file_set: str
    name: str
    delete: list[str]
    keep: list[dict[str, str]]
    freed_bytes: int


@routes.get("/files", response_model=PageOut[FileSetOut], **needs(Role.USER))
async def list_files(
    rooms: Rooms,
    who: Who,
    page: Listing,
    layout: Annotated[str | None, Query(max_length=50)] = None,
    repo: Annotated[str | None, Query(max_length=200)] = None,
    format: Annotated[str | None, Query(max_length=50)] = None,
) -> Any:
    """Every file set in every root. Sort by name, size_bytes, modified_at and others."""
    found = await rooms.library.list(
        search=page.search, layout=layout, repo=repo, format=format, **page.order("name"), **page.part
    )
    return page_out(found, [_file_set_out(rooms, file_set) for file_set in found.items])


@routes.get("/files/folders", response_model=PageOut[Folder], **needs(Role.POWER_USER))
async def list_folders(
    rooms: Rooms,
    who: Who,
    page: Listing,
    path: Annotated[str | None, Query(max_length=4_096, description="Without it: the roots.")] = None,
) -> Any:
    """The folders directly in a folder of the library, by name."""
    if path is None:
        found = [Folder(root.path.name, root.path) for root in await rooms.library.roots() if root.available]
    else:
        found = await rooms.library.subfolders(absolute_path(path))
    return page_out(page.cut(found))


@routes.post("/files/inspect", response_model=FileSetOut, **needs(Role.POWER_USER))
async def inspect_file(rooms: Rooms, who: Who, body: InspectIn) -> Any:
    """Read the header of a file, or look into a folder; nothing is changed."""
    return _file_set_out(rooms, await rooms.library.inspect(await readable_path(rooms, who, body.path)))


@routes.get("/files/{file_set_id}", response_model=FileSetOut, **needs(Role.USER))
async def show_files(rooms: Rooms, who: Who, file_set_id: FileSetId) -> Any:
    """One file set."""
    return _file_set_out(rooms, await rooms.library.get(file_set_id))


@routes.delete("/files/{file_set_id}", response_model=DeletedOut, **needs(Role.MANAGER))
async def delete_files(rooms: Rooms, who: Who, file_set_id: FileSetId) -> Any:
    """Delete these files from the disk: only where Ostler put them, and not while a model uses them."""
    plan = await rooms.library.plan_delete(file_set_id, await in_use(rooms))
    return (await rooms.library.delete(plan, who)).to_json()


@routes.get("/roots", response_model=PageOut[Root], tags=["roots"], **needs(Role.USER))
async def list_roots(rooms: Rooms, who: Who, page: Listing) -> Any:
    """The folders that are looked into."""
    return page_out(page.cut(await rooms.library.roots()))


@routes.post("/roots", response_model=Root, status_code=201, tags=["roots"], **needs(Role.ADMIN))
async def add_root(rooms: Rooms, who: Who, body: RootIn) -> Any:
    """List one more folder."""
    return await rooms.library.add_root(absolute_path(body.path), body.layout, who)


@routes.delete("/roots/{root_id}", status_code=204, tags=["roots"], **needs(Role.ADMIN))
async def remove_root(rooms: Rooms, who: Who, root_id: RootId) -> None:
    """List a folder no more. Its files stay."""
    await rooms.library.remove_root(root_id, who)


async def readable_path(rooms: Services, who: Principal, text: str) -> FilePath:
    """The path, if this person may look at it. Raises InvalidField, OutsideRoots."""
    path = absolute_path(text)
    if who.role < Role.ADMIN:
        await rooms.library.root_of(path)
    return path


def absolute_path(text: str) -> FilePath:
    """A path from outside, absolute and without '..'. Raises InvalidField."""
    path = FilePath(text)
    if not text.strip() or "\0" in text or not path.is_absolute() or ".." in path.parts:
        raise InvalidField(
            "path", f"{text[:200]!r} is not an absolute path without '..'", hint="Such as /models/my.gguf"
        )
    return path


def _file_set_out(rooms: Services, files: FileSet) -> dict[str, Any]:
    values = {name: getattr(files, name) for name in FileSet.__slots__}
    return {
        **values,
        "used_by": [model.name for model in rooms.models.all() if uses(model, files)],
        "recommendation": recommend(rooms.engines, files),
    }
