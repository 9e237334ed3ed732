"""A model of ours as an alias of BodhiApp's, and all of them as one list.

Every model of llama.cpp is an alias, whoever made it (`source` "user"); every automatic model too
("model"), unless a stored one has its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ostler.access.names import may_use
from ostler.api.services import Services
from ostler.core.principals import Principal
from ostler.library.filesets import FileSet
from ostler.models.alias_params import CONTEXT, CONTEXT_PARAMS, REQUEST, REQUEST_PARAMS, to_theirs
from ostler.models.automatic import AutomaticModel
from ostler.models.index import ModelNotFound
from ostler.models.records import Model

ORIGIN = "bodhi"
ENGINE = "llamacpp"
LIBRARY = "library"
"""The origin of a model that was automatic until its first use."""

MAIN = "main"
_IN_CACHE = re.compile(r".*/models--([^/]+)/snapshots/([^/]+)/(.+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One alias. `model` is None where nothing is stored of it; `snapshot` "" where it must be looked up."""

    name: str
    source: str
    repo: str
    filename: str
    snapshot: str
    created_at: datetime
    updated_at: datetime
    model: Model | None

    def to_json(self) -> dict[str, Any]:
        """BodhiApp's object; empty parameters leave no trace in it."""
        defaults = self.model.request_defaults if self.model else {}
        options = self.model.options if self.model else {}
        return {
            "alias": self.name,
            "repo": self.repo,
            "filename": self.filename,
            "snapshot": self.snapshot,
            "source": self.source,
            REQUEST: to_theirs(REQUEST_PARAMS, defaults),
            CONTEXT: to_theirs(CONTEXT_PARAMS, options),
            "model_params": {},
            "requested_snapshot": requested_snapshot(self.model) if self.model else None,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


SORTS: Mapping[str, Callable[[Entry], tuple[str, ...]]] = {
    "name": lambda entry: (entry.name,),
    "repo": lambda entry: (entry.repo, entry.name),
    "filename": lambda entry: (entry.filename, entry.name),
    "source": lambda entry: (entry.source, entry.name),
}


def entry_of(model: Model) -> Entry:
    """A stored model as an alias."""
    source = model.source
    repo, filename, snapshot = source.repo or "", source.file or "", source.revision or ""
    if source.path is not None:
        repo, filename, snapshot = in_cache(source.path) or ("", Path(source.path).name, "")
    whose = "model" if model.origin == LIBRARY and ORIGIN not in model.dialect_data else "user"
    return Entry(model.name, whose, repo, filename, snapshot, model.created_at, model.updated_at, model)


def entry_of_automatic(found: AutomaticModel) -> Entry:
    """An automatic model as an alias."""
    files = found.file_set
    place = in_cache(str(files.path)) or (files.repo or "", files.path.name, files.revision or "")
    return Entry(found.name, "model", *place, files.modified_at, files.modified_at, None)


def in_cache(path: str) -> tuple[str, str, str] | None:
    """Repo, file name and commit of a path in a hub cache."""
    match = _IN_CACHE.fullmatch(path)
    return (match[1].replace("--", "/"), match[3], match[2]) if match else None


def requested_snapshot(model: Model) -> str:
    """The branch or commit that was asked for when the alias was made."""
    kept = model.dialect_data.get(ORIGIN) or {}
    return str(kept.get("snapshot") or MAIN)


async def all_entries(rooms: Services, who: Principal) -> list[Entry]:
    """Every alias that this principal may use, in no order."""
    stored = [model for model in rooms.models.all() if _is_alias(model)]
    found = [entry_of(model) for model in stored if may_use(who, *model.names)]
    names = {name for model in stored for name in model.names}
    automatic = await rooms.automatic.list(with_used=True)
    return found + [
        entry_of_automatic(one)
        for one in automatic
        if one.engine == ENGINE and one.name not in names and may_use(who, one.name)
    ]


async def find_entry(rooms: Services, who: Principal, name: str) -> Entry:
    """The alias with that name. Raises ModelNotFound."""
    model = rooms.models.find(name)
    if model is not None and _is_alias(model) and may_use(who, *model.names):
        return await looked_up(rooms, entry_of(model))
    automatic = await rooms.automatic.find(name) if model is None and may_use(who, name) else None
    if automatic is not None and automatic.engine == ENGINE:
        return entry_of_automatic(automatic)
    near = [other for other in rooms.models.near(name) if may_use(who, other)]
    hint = f"Did you mean {' or '.join(near)}?" if near else "See what there is: GET /bodhi/v1/models"
    raise ModelNotFound(f"alias {name!r} not found", hint=hint, alias=name)


async def looked_up(rooms: Services, entry: Entry) -> Entry:
    """The alias with the file and commit that its source means now, where the source does not say them."""
    model = entry.model
    if model is None or model.source.kind != "hub" or (entry.filename and entry.snapshot):
        return entry
    source = model.source
    files = await rooms.library.find(
        repo=source.repo, file=source.file, tag=source.tag, revision=source.revision
    )
    return _completed(entry, files)


async def all_looked_up(rooms: Services, entries: Iterable[Entry]) -> list[Entry]:
    """The same for the aliases of one page."""
    return [await looked_up(rooms, entry) for entry in entries]


def _completed(entry: Entry, files: FileSet | None) -> Entry:
    place = in_cache(str(files.path)) if files is not None else None
    repo, filename, snapshot = place or (entry.repo, "", MAIN)
    return replace(
        entry,
        repo=entry.repo or repo,
        filename=entry.filename or filename,
        snapshot=entry.snapshot or snapshot,
    )


def _is_alias(model: Model) -> bool:
    return model.engine == ENGINE and not model.archived
