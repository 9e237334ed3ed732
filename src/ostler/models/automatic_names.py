"""Which files of a cache are models by themselves, and by what names.

The name is BodhiApp's: `owner/repo:QUALIFIER`, where the qualifier is what stands last in the file's name
before its ending, after a dot and a dash: `Phi-3-mini-4k-instruct-q4.gguf` is `q4`. A split model is named
by its quantization, for its file names end in numbers; a safetensors snapshot is `owner/repo`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import PurePath

from ostler.library.assembly import stem_of
from ostler.library.filesets import FileSet
from ostler.library.finding import DEFAULT_REF
from ostler.library.grouping import shard_number
from ostler.models.names import is_name, name_from

LAYOUTS = ("hub-cache", "llama-cache")
"""Caches of the Hub, best first: what lies in them has a repo, and nobody gave it a name."""

_DRAFTS = re.compile(r"(?:^|[-_.])(?:draft|eagle\d?|mtp)(?:[-_.]|$)", re.IGNORECASE)


def is_servable(files: FileSet, formats: Collection[str]) -> bool:
    """True for a whole model of a cache in one of these formats.

    Projectors, adapters, drafting models and the parts of image generators are none.
    """
    facts = files.facts
    return (
        files.layout in LAYOUTS
        and files.repo is not None
        and files.complete
        and files.error is None
        and files.format in formats
        and facts is not None
        and facts.kind == "model"
        and facts.architecture is not None
        and not _DRAFTS.search(stem_of(PurePath(place_of(files)).name))
    )


def place_of(files: FileSet) -> str:
    """Where they are in their repo: `folder/model-Q8_0.gguf`; "" for a snapshot's own folder."""
    if files.layout == "hub-cache":
        return str(files.path).partition(f"/snapshots/{files.revision}")[2].strip("/")
    return files.path.name.removeprefix(f"{files.repo}_".replace("/", "_"))


def named(
    found: Iterable[FileSet], is_taken: Callable[[str], bool], users: Mapping[str, Collection[str]]
) -> dict[str, FileSet]:
    """The servable sets of one repo by their names.

    Of several snapshots of one file the one that `main` points to counts, else the newest. Where two files
    would have one name, the one that was here first keeps it; the other is called by its whole name. A name
    that is taken is left to its owner; `users` are the names of the models of each set, by its id: a set
    that is already served by one of its own names gets no second one.
    """
    names: dict[str, FileSet] = {}
    for files in sorted(_of_each_place(found), key=lambda item: (item.modified_at, place_of(item))):
        possible = list(_possible_names(files))
        if not set(possible).isdisjoint(users.get(files.id, ())):
            continue
        free = (name for name in possible if name not in names and not is_taken(name))
        if (name := next(free, None)) is not None:
            names[name] = files
    return names


def _of_each_place(found: Iterable[FileSet]) -> list[FileSet]:
    """One set of each file of a repo; the caches of llama.cpp write a folder's slash as `_`."""
    best: dict[str, FileSet] = {}
    for files in sorted(found, key=_preference):
        best.setdefault(place_of(files).replace("/", "_"), files)
    return list(best.values())


def _preference(files: FileSet) -> tuple[int, bool, float, str]:
    return (
        LAYOUTS.index(files.layout or ""),
        DEFAULT_REF not in files.refs,
        -files.modified_at.timestamp(),
        str(files.path),
    )


def _possible_names(files: FileSet) -> Iterator[str]:
    """The names that it may have, the best first."""
    place = PurePath(place_of(files))
    if files.format != "gguf":
        below = "" if str(place) == "." else f":{place}"
        words = [f"{files.repo}{below}", f"{files.repo}:{files.format}"]
    else:
        stem = stem_of(place.name)
        is_split = shard_number(place.name) is not None
        qualifier = files.tag if is_split and files.tag else stem.rsplit(".", 1)[-1].rsplit("-", 1)[-1]
        whole = str(place.with_name(stem)).replace("/", "-")
        words = [f"{files.repo}:{word}" for word in (qualifier, files.tag, whole) if word]
    # A repo may be called by one of our own words (org/start): its next name will do.
    yield from filter(is_name, dict.fromkeys(name_from(word) for word in words))
