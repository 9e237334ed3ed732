"""Which files of one folder load as one thing, by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ostler.library.hf_folder import COMPANION_ENDINGS
from ostler.library.scanning import Place, SeenFile

MAX_SHARDS = 2_000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})(?P<ending>\.gguf)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Group:
    """Files that load as one thing. `first` names what an engine is given ("" for the folder itself).

    `weights` are here, in order; `missing` are names of absent shards. `shard_count` is 1 for a
    model in one file.
    """

    place: Place
    format: str
    first: str
    weights: tuple[SeenFile, ...]
    shard_count: int = 1
    missing: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Where it is, relative to the root."""
        return "/".join(part for part in (self.place.relative, self.first) if part)


def groups_in(place: Place) -> Iterator[Group]:
    """The groups of one folder: each GGUF with its shards, and the safetensors files together."""
    split: dict[tuple[str, str], dict[int, SeenFile]] = {}
    for name, file in place.files.items():
        if not name.lower().endswith(".gguf"):
            continue
        match = _SHARD.fullmatch(name)
        if match and 1 <= int(match["no"]) <= int(match["count"]) <= MAX_SHARDS:
            split.setdefault((match["stem"], match["count"] + match["ending"]), {})[int(match["no"])] = file
        else:
            yield Group(place, "gguf", name, (file,))
    for (stem, rest), shards in split.items():
        names = part_names(f"{stem}-00001-of-{rest}")
        yield Group(
            place,
            "gguf",
            names[0],
            tuple(shards[n] for n in sorted(shards)),
            len(names),
            tuple(name for n, name in enumerate(names, 1) if n not in shards),
        )
    weights = tuple(file for name, file in place.files.items() if _is_safetensors(name))
    if weights:
        yield Group(place, "safetensors", "", weights)


def companions(place: Place) -> list[SeenFile]:
    """Configuration, tokenizer and template files beside safetensors weights."""
    return [file for name, file in place.files.items() if name.lower().endswith(COMPANION_ENDINGS)]


def part_names(name: str) -> tuple[str, ...]:
    """The names of all parts of the model that a GGUF's name is one part of; of a whole one its own."""
    match = _SHARD.fullmatch(name)
    if not match or not 1 <= int(match["no"]) <= int(match["count"]) <= MAX_SHARDS:
        return (name,)
    stem, rest = match["stem"], match["count"] + match["ending"]
    return tuple(f"{stem}-{number:05}-of-{rest}" for number in range(1, int(match["count"]) + 1))


def shard_number(name: str) -> int | None:
    """Which shard a file's name says it is, from 0; None for a model in one file."""
    match = _SHARD.fullmatch(name)
    return int(match["no"]) - 1 if match else None


def _is_safetensors(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))
