"""What a model on the hub is, read from the headers of its files without downloading them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ostler.hub.ranges import RemoteFile, Spent
from ostler.hub.records import HubFile, Resolution
from ostler.library.assembly import facts_of_gguf, with_projector
from ostler.library.bounded_json import parse_json_object
from ostler.library.errors import BrokenFile, NotAModelFile, UnsupportedFile
from ostler.library.facts import ModelFacts
from ostler.library.gguf_gaps import FIRST_PIECE, read_gguf_header_in_pieces
from ostler.library.gguf_header import GgufHeader
from ostler.library.hf_config import summary_of_adapter_config, summary_of_config
from ostler.library.hf_folder import (
    INDEX_ENDING,
    TEMPLATES,
    inspect_folder,
    summary_of_index,
    summary_of_safetensors,
)
from ostler.library.repeated_shards import shards_to_read, worked_out
from ostler.library.safetensors import SafetensorsHeader, read_safetensors_header_from
from ostler.library.summaries import Summary, gguf_facts, summary_of_gguf

T = TypeVar("T")

FIRST_OF_SHARD = 64 * 1024
"""Bytes read at first of what has no vocabulary: further shards, projectors, safetensors files."""
MAX_SMALL_FILE_BYTES = 1024 * 1024
MAX_INDEX_BYTES = 8 * 1024 * 1024
"""An index of many experts takes some MB, and saves as much in headers."""
_CONFIGS = ("config.json", "adapter_config.json")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model on the hub at one commit, as its headers describe it.

    `facts` are what the same files would give on disk. `gguf` (by shard) or `safetensors` (by name of the
    file) are the headers themselves, `mmproj_header` the projector's, `config` the parsed `config.json`.
    `headers_read` is of how many safetensors files the header was read: those of the others follow from
    the index and are proven by their sizes (`repeated_shards.py`). `requests` and `fetched_bytes` are what
    reading took, without resolving the spec.
    """

    repo: str
    revision: str
    commit: str
    format: str
    tag: str | None
    primary: str
    files: tuple[HubFile, ...]
    size_bytes: int
    facts: ModelFacts
    mmproj: str | None = None
    gated: str | None = None
    renamed_from: str | None = None
    requests: int = 0
    fetched_bytes: int = 0
    gguf: tuple[GgufHeader, ...] = ()
    mmproj_header: GgufHeader | None = None
    safetensors: Mapping[str, SafetensorsHeader] | None = None
    config: Mapping[str, Any] | None = None
    headers_read: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, without the headers."""
        plain = ("repo", "revision", "commit", "format", "tag", "primary", "size_bytes", "mmproj", "gated")
        return {
            **{
                name: getattr(self, name)
                for name in (*plain, "renamed_from", "requests", "fetched_bytes", "headers_read")
            },
            "files": [{"path": file.path, "size_bytes": file.size_bytes} for file in self.files],
            "facts": self.facts.to_json(),
        }


Open = Callable[[HubFile], RemoteFile]


async def inspect_remote(found: Resolution, open_file: Open, free: asyncio.Semaphore) -> RemoteModel:
    """Read the headers of what a spec means, several files at once as far as `free` lets.

    Raises the errors of this room and, for headers that are damaged or unknown, those of the library.
    """
    reading = _Reading(open_file, free)
    known = await (_gguf(found, reading) if found.format == "gguf" else _safetensors(found, reading))
    return replace(known, requests=reading.spent.requests, fetched_bytes=reading.spent.fetched_bytes)


class _Reading:
    """Files of one model being read, and what that costs altogether."""

    def __init__(self, open_file: Open, free: asyncio.Semaphore) -> None:
        self._open = open_file
        self._free = free
        self.spent = Spent()

    async def gguf(self, file: HubFile, first: int) -> GgufHeader:
        """The header of a GGUF."""
        return await self._of(
            file, lambda remote: read_gguf_header_in_pieces(remote.read, file.size_bytes, first)
        )

    async def safetensors(self, file: HubFile) -> SafetensorsHeader:
        """The header of a safetensors file."""
        return await self._of(
            file, lambda remote: read_safetensors_header_from(_Ahead(remote).read, file.size_bytes)
        )

    async def whole(self, file: HubFile) -> bytes:
        """A small file, all of it."""
        return await self._of(file, lambda remote: remote.read(0, file.size_bytes))

    async def _of(self, file: HubFile, read: Callable[[RemoteFile], T]) -> T:
        remote = self._open(file)
        try:
            async with self._free:
                return await asyncio.to_thread(read, remote)
        except (BrokenFile, NotAModelFile, UnsupportedFile) as error:
            raise type(error)(f"{file.path}: {error.message}", hint=error.hint, **error.facts) from error
        finally:
            self.spent.requests += remote.spent.requests
            self.spent.fetched_bytes += remote.spent.fetched_bytes


class _Ahead:
    """Reads the begin of a file in one go: a safetensors header and the length before it."""

    def __init__(self, remote: RemoteFile) -> None:
        self._remote = remote
        self._here = b""

    def read(self, offset: int, length: int) -> bytes:
        """As RemoteFile.read, from what is here already where possible."""
        end = min(offset + length, self._remote.file.size_bytes)
        if end > len(self._here):
            begin = len(self._here)
            self._here += self._remote.read(begin, max(end - begin, 0 if begin else FIRST_OF_SHARD))
        return self._here[offset:end]


async def _gguf(found: Resolution, reading: _Reading) -> RemoteModel:
    weights = [file for file in found.files if file.path != found.mmproj]
    projectors = [file for file in found.files if file.path == found.mmproj]
    firsts = [FIRST_PIECE, *[FIRST_OF_SHARD] * (len(weights) - 1 + len(projectors))]
    headers = await _all([reading.gguf(f, n) for f, n in zip([*weights, *projectors], firsts, strict=True)])
    of_weights = headers[: len(weights)]
    shards = _SHARD.search(weights[0].name)
    facts = facts_of_gguf(
        [file.name for file in weights],
        [summary_of_gguf(header) for header in of_weights],
        int(shards[1]) if shards else 1,
    )
    mmproj = headers[-1] if projectors else None
    shown = with_projector(facts, gguf_facts(mmproj)) if mmproj else facts
    return replace(_model(found, shown or facts), gguf=tuple(of_weights), mmproj_header=mmproj)


async def _safetensors(found: Resolution, reading: _Reading) -> RemoteModel:
    folder = found.primary.rpartition("/")[0]
    beside = {file.name: file for file in found.files if file.path.rpartition("/")[0] == folder}
    weights = [file for file in beside.values() if file.name.endswith(".safetensors")]
    small = [beside[name] for name in _small_names(beside)]
    texts = await _all([reading.whole(file) for file in small])
    contents = {file.name: text for file, text in zip(small, texts, strict=True)}
    by_name, n_read = await _headers(weights, contents, reading)
    facts = await asyncio.to_thread(_facts_of_folder, found, by_name, contents, sorted(beside))
    config = parse_json_object(contents["config.json"], "config.json") if "config.json" in contents else None
    return replace(_model(found, facts), safetensors=by_name, config=config, headers_read=n_read)


async def _headers(
    weights: Sequence[HubFile], contents: Mapping[str, bytes], reading: _Reading
) -> tuple[dict[str, SafetensorsHeader], int]:
    """The header of each file, read or worked out from others; and how many were read."""
    names = await asyncio.to_thread(_names_by_file, contents)
    needed = shards_to_read(names) if names.keys() == {file.name for file in weights} else set(names)
    found: dict[str, SafetensorsHeader] = {}

    async def read(files: Sequence[HubFile]) -> None:
        headers = await _all([reading.safetensors(file) for file in files])
        found.update((file.name, header) for file, header in zip(files, headers, strict=True))

    await read([file for file in weights if file.name in needed or file.name not in names])
    told = tuple(found.values())
    sizes = {file.name: file.size_bytes for file in weights if file.name not in found}
    found |= await asyncio.to_thread(worked_out, names, sizes, told)
    rest = [file for file in weights if file.name not in found]
    await read(rest)
    return {file.name: found[file.name] for file in weights}, len(told) + len(rest)


def _names_by_file(contents: Mapping[str, bytes]) -> dict[str, list[str]]:
    """The tensors of each file as the index names them; nothing where there is not exactly one index."""
    indices = [name for name in contents if name.endswith(INDEX_ENDING)]
    weight_map = parse_json_object(contents[indices[0]], indices[0]).get("weight_map") if indices else None
    if len(indices) != 1 or not isinstance(weight_map, dict):
        return {}
    names: dict[str, list[str]] = {}
    for tensor, file in weight_map.items():
        names.setdefault(str(file), []).append(tensor)
    return names


def _small_names(beside: Mapping[str, HubFile]) -> list[str]:
    """The small files that say something: the configuration, the index, and the first chat template."""
    readable = {name for name, file in beside.items() if file.size_bytes <= _most_bytes(name)}
    names = [name for name in _CONFIGS if name in readable]
    names += sorted(name for name in readable if name.endswith(INDEX_ENDING))
    templates = [name for name in TEMPLATES if name in readable]
    if templates[:1] == ["chat_template.jinja"]:
        del templates[1:]
    return names + templates


def _most_bytes(name: str) -> int:
    return MAX_INDEX_BYTES if name.endswith(INDEX_ENDING) else MAX_SMALL_FILE_BYTES


def _facts_of_folder(
    found: Resolution,
    headers: Mapping[str, SafetensorsHeader],
    contents: Mapping[str, bytes],
    names: Sequence[str],
) -> ModelFacts:
    """What the library says of a folder with these small files and weights with these headers."""
    known = [
        name
        for name in names
        if name in headers or name in contents or not name.endswith((INDEX_ENDING, *_CONFIGS, *TEMPLATES))
    ]

    def read(path: Path, _: Callable[[Path], Summary]) -> Summary:
        if path.name in headers:
            return summary_of_safetensors(headers[path.name])
        if path.name not in contents:
            raise BrokenFile(f"{path.name} is named as weights and is no safetensors file")
        parsed = parse_json_object(contents[path.name], path.name)
        if path.name.endswith(INDEX_ENDING):
            return summary_of_index(parsed, path)
        return summary_of_config(parsed) if path.name == "config.json" else summary_of_adapter_config(parsed)

    return inspect_folder(Path(found.repo), known, read, lambda path: contents[path.name]).facts


def _model(found: Resolution, facts: ModelFacts) -> RemoteModel:
    return RemoteModel(
        repo=found.repo,
        revision=found.revision,
        commit=found.commit,
        format=found.format,
        tag=found.tag,
        primary=found.primary,
        files=found.files,
        size_bytes=found.total_bytes,
        facts=replace(facts, size_bytes=found.total_bytes),
        mmproj=found.mmproj,
        gated=found.gated,
        renamed_from=found.renamed_from,
    )


async def _all(reads: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read) for read in reads]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
