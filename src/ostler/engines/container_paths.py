"""Host files as an engine in a container sees them: each read-only somewhere under /models.

Only what the model needs is shown: single files, or a folder that is loaded as one. Links (a hub
cache is made of them) are followed here, and what they lead to stands under the link's own name, so
that nothing has to resolve inside the container.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ostler.core.launch import LaunchSpec, Mount
from ostler.engines.base import LaunchRequest
from ostler.engines.options import OptionTable

ROOT = PurePosixPath("/models")
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)")


class ContainerPaths:
    """Collects mounts. Touches the file system only to look."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}
        self._mounts: dict[str, Mount] = {}

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What was asked for until now, by target."""
        return tuple(self._mounts[target] for target in sorted(self._mounts))

    def add(self, path: Path) -> str:
        """Where this file or folder is inside; with a shard come the other shards.

        What is not on the host is taken to be a path inside already.
        """
        if path.is_dir():
            return self._add_folder(path)
        if not path.exists():
            return str(path)
        inside = ROOT / self._folder_name(path.parent)
        for file in _with_shards(path):
            self._mount(os.path.realpath(file), inside / file.name)
        return str(inside / path.name)

    def _add_folder(self, folder: Path) -> str:
        inside = ROOT / self._folder_name(folder)
        if not any(_leads_out(link, folder) for link in _files_below(folder) if link.is_symlink()):
            self._mount(os.path.realpath(folder), inside)
            return str(inside)
        for file in _files_below(folder):
            if file.exists():  # a link into nowhere is of no use to the engine either
                self._mount(os.path.realpath(file), inside / file.relative_to(folder))
        return str(inside)

    def _mount(self, source: str, target: PurePosixPath) -> None:
        self._mounts[str(target)] = Mount(source, str(target))

    def _folder_name(self, folder: Path) -> str:
        """A name of its own for each folder of the host: its last part, numbered where taken."""
        if folder not in self._folders:
            plain = re.sub(r"[^\w.\-]", "_", folder.name) or "files"
            name, taken, number = plain, set(self._folders.values()), 1
            while name in taken:
                number += 1
                name = f"{plain}-{number}"
            self._folders[folder] = name
        return self._folders[folder]


def _with_shards(path: Path) -> list[Path]:
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    base, _, count, suffix = match.groups()
    shards = [path.with_name(f"{base}-{n:05d}-of-{count}{suffix}") for n in range(1, int(count) + 1)]
    return [shard for shard in shards if shard.exists()]


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in sorted([*files, *linked]))


def _leads_out(link: Path, folder: Path) -> bool:
    return not link.resolve().is_relative_to(folder.resolve()) or link.readlink().is_absolute()


def options_inside(table: OptionTable, values: Mapping[str, Any], paths: ContainerPaths) -> dict[str, Any]:
    """Options whose files are named as they are found inside; `FILE:SCALE` is known by its option's name."""
    inside = dict(values)
    for name, value in values.items():
        one = _inside_scaled if name.endswith("_scaled") else _inside
        if table.get(name).type != "path" and one is _inside:
            continue
        many = isinstance(value, list | tuple)
        inside[name] = [one(paths, str(part)) for part in value] if many else one(paths, str(value))
    return inside


def in_container(
    spec: LaunchSpec, request: LaunchRequest, paths: ContainerPaths, *, image: str | None, shm_bytes: int
) -> LaunchSpec:
    """The spec of a container: its image (the model's own, else `image`), its files and the model's wishes.

    The image's entry point is the program unless the model has a command of its own.
    """
    wishes: dict[str, Any] = {"shm_size": shm_bytes, **request.runtime_options}
    return replace(
        spec,
        image=wishes.pop("image", None) or image,
        command=tuple(shlex.split(request.command_override or "")),
        mounts=paths.mounts,
        runtime_options=wishes,
    )


def _inside(paths: ContainerPaths, text: str) -> str:
    return paths.add(Path(text))


def _inside_scaled(paths: ContainerPaths, text: str) -> str:
    file, colon, scale = text.rpartition(":")
    return f"{paths.add(Path(file))}:{scale}" if colon else text
