"""Inspecting a path that may be in no root at all."""

from __future__ import annotations

import os
from pathlib import Path

from ostler.library.assembly import Where, file_sets
from ostler.library.byte_windows import open_regular, reader_of
from ostler.library.errors import BrokenFile, NotAModelFile, PathNotFound, UnreadableFile
from ostler.library.filesets import FileSet
from ostler.library.finding import is_model
from ostler.library.gguf import MAGIC, read_gguf_header
from ostler.library.grouping import Group, groups_in
from ostler.library.hf_folder import inspect_folder
from ostler.library.inspections import Reader
from ostler.library.scanning import Neighbourhood, Place, SeenFile, Walk, regular
from ostler.library.summaries import Summary

NOWHERE = Where(None, None, None)
MAX_NAMED = 5


def inspect_loose(path: Path) -> FileSet:
    """The file set at a path, without a cache. Blocking.

    A shard means its whole model, a folder the one model in it. Raises PathNotFound, NotAModelFile,
    UnreadableFile; a broken model is a set with an error.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path} cannot be looked at: {error}", path=str(path)) from error
    if not exists:
        raise PathNotFound(f"there is nothing at {path}", path=str(path))
    return _in_folder(path) if is_folder else _file(path)


def raise_own_error(found: FileSet) -> None:
    """Raise the error that makes a set unusable, in its own class. Blocking."""
    if found.format == "gguf":
        for file in found.files:
            read_gguf_header(file.path)
    else:
        inspect_folder(found.path)
    raise BrokenFile(found.error or f"{found.path} cannot be used", path=str(found.path))


def _in_folder(folder: Path) -> FileSet:
    found = _sets(_place(folder), None)
    choices = [item for item in found if is_model(item)] or found
    if len(choices) == 1:
        return choices[0]
    if not choices:
        raise NotAModelFile(f"{folder} holds no model files", path=str(folder))
    names = ", ".join(item.path.name for item in choices[:MAX_NAMED])
    raise NotAModelFile(
        f"{folder} holds {len(choices)} models", hint=f"Name one of them: {names}", path=str(folder)
    )


def _file(path: Path) -> FileSet:
    place = _place(path.parent)
    if path.name not in place.files:
        raise NotAModelFile(f"{path} is not a regular file", path=str(path))
    own = _group_of(place, path)
    projectors = [g for g in groups_in(place) if "mmproj" in g.first.lower() and g.key != own.key]
    for found in _sets(place, [own, *projectors]):
        if found.path == Path(own.place.path, own.first):
            return found
    raise NotAModelFile(f"{path} is no model file", path=str(path))


def _group_of(place: Place, path: Path) -> Group:
    """The group with this file; a GGUF is known by its first bytes where its name does not say so."""
    for group in groups_in(place):
        if any(Path(file.path).name == path.name for file in group.weights):
            return group
    with open_regular(path) as (descriptor, _):
        if reader_of(descriptor, path)(0, len(MAGIC)) == MAGIC:
            return Group(place, "gguf", path.name, (place.files[path.name],))
    raise NotAModelFile(f"{path} is neither a GGUF nor a safetensors file", path=str(path))


def _sets(place: Place, groups: list[Group] | None) -> list[FileSet]:
    return file_sets(NOWHERE, Neighbourhood("", [place]), _uncached, groups)


def _uncached(file: SeenFile, reader: Reader) -> Summary:
    return reader(Path(file.path))


def _place(folder: Path) -> Place:
    """The folder's files; here links are followed anywhere, as the person named the place."""
    files = {}
    for entry in Walk().entries_of(str(folder)):
        if file := regular(entry.path):
            files[entry.name] = file
    return Place(str(folder), str(folder), files)
