"""Aliases: `/bodhi/v1/models`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import field_validator

from ostler.api.dialects.bodhi.door import BodhiBody, Paged, router
from ostler.api.dialects.bodhi.entries import (
    ENGINE,
    MAIN,
    ORIGIN,
    SORTS,
    Entry,
    all_entries,
    all_looked_up,
    entry_of,
    find_entry,
    looked_up,
    requested_snapshot,
)
from ostler.api.dialects.bodhi.errors import AliasMismatch, AliasMissing
from ostler.api.dialects.bodhi.files_here import commit_of
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import OstlerError
from ostler.core.principals import Role
from ostler.hub.specs import check_repo
from ostler.models.alias_params import (
    AT_NEXT_REQUEST,
    CONTEXT,
    CONTEXT_PARAMS,
    REQUEST,
    REQUEST_PARAMS,
    replacing,
    to_ours,
)
from ostler.models.index import ModelNotFound
from ostler.models.records import NewModel, Source
from ostler.models.service import NameTaken

routes = router("models")

AliasName = Annotated[str, Path(max_length=512)]


class _Parameters(BodhiBody):
    """What an alias is served with; an object that is sent replaces the one that is there."""

    request_params: dict[str, Any] | None = None
    context_params: dict[str, Any] | None = None


class AliasIn(_Parameters):
    """A new alias: its name, and the file in the hub cache that it stands for."""

    alias: str | None = None
    repo: str
    filename: str
    snapshot: str | None = None

    @field_validator("repo")
    @classmethod
    def _repo(cls, repo: str) -> str:
        try:
            return check_repo(repo)
        except OstlerError as error:
            raise ValueError(error.message) from error


class AliasChanges(_Parameters):
    """What to change; what is left out stays as it is."""

    alias: str | None = None
    repo: str | None = None
    filename: str | None = None
    snapshot: str | None = None


class CopyIn(BodhiBody):
    """The name of the copy."""

    alias: str | None = None


@routes.get("/bodhi/v1/models", **needs(Role.USER))
async def list_aliases(rooms: Rooms, who: Who, page: Paged) -> dict[str, Any]:
    """Every alias. Sort by name, repo, filename, source; what is not known is by name."""
    entries = await all_entries(rooms, who)
    entries.sort(key=SORTS.get(page.sort or "name", SORTS["name"]), reverse=page.descending)
    shown = await all_looked_up(rooms, page.cut(entries))
    return page.answer([entry.to_json() for entry in shown], len(entries))


@routes.get("/bodhi/v1/models/{alias:path}", **needs(Role.USER))
async def show_alias(rooms: Rooms, who: Who, alias: AliasName) -> dict[str, Any]:
    """One alias; slashes in its name may come as they are or as %2F."""
    return (await find_entry(rooms, who, alias)).to_json()


@routes.post("/bodhi/v1/models", status_code=201, **needs(Role.POWER_USER))
async def create_alias(rooms: Rooms, who: Who, body: AliasIn) -> dict[str, Any]:
    """Make an alias of a file that is in the hub cache; its snapshot becomes the commit."""
    name = _given_name(body.alias)
    defaults = to_ours(REQUEST_PARAMS, body.request_params, REQUEST)
    options = to_ours(CONTEXT_PARAMS, body.context_params, CONTEXT)
    await _refuse_taken(rooms, name)
    source, kept = await _source(rooms, body.repo, body.filename, body.snapshot or MAIN)
    new = NewModel(
        source,
        name=name,
        engine=ENGINE,
        options=options,
        request_defaults=defaults,
        origin=ORIGIN,
        policy=AT_NEXT_REQUEST,
        dialect_data={ORIGIN: kept},
    )
    return entry_of(await rooms.models.create(new, who)).to_json()


@routes.put("/bodhi/v1/models/{alias:path}", **needs(Role.POWER_USER))
async def change_alias(rooms: Rooms, who: Who, alias: AliasName, body: AliasChanges) -> dict[str, Any]:
    """Change some of an alias; it holds from the next request on.

    An automatic alias that is changed becomes one of the user's own, under the same name.
    """
    if body.alias is not None and body.alias != alias:
        raise AliasMismatch(f"the path says {alias!r} and the body {body.alias!r}")
    entry = await find_entry(rooms, who, alias)
    changes = await _changes(rooms, entry, body)
    if not changes:
        return entry.to_json()
    model = entry.model or await rooms.automatic.adopt(entry.name, who)
    data = {**model.dialect_data, ORIGIN: changes.pop(ORIGIN, {"snapshot": requested_snapshot(model)})}
    model = await rooms.models.update(model.id, {**changes, "dialect_data": data}, who)
    return (await looked_up(rooms, entry_of(model))).to_json()


@routes.delete("/bodhi/v1/models/{alias:path}", **needs(Role.POWER_USER))
async def delete_alias(rooms: Rooms, who: Who, alias: AliasName) -> dict[str, Any]:
    """Stop an alias of the user's own and delete it, never its file."""
    entry = await find_entry(rooms, who, alias)
    if entry.model is None or entry.source == "model":
        raise ModelNotFound(
            f"alias {alias!r} is made from a file by itself: nothing of it is stored that could be deleted",
            hint="DELETE /bodhi/v1/modelfiles deletes the file, where that is allowed.",
            alias=alias,
        )
    await rooms.instances.stop(entry.model.id, who)
    await rooms.models.delete(entry.model.id, who)
    return entry.to_json()


@routes.post("/bodhi/v1/models/{alias:path}/copy", status_code=201, **needs(Role.POWER_USER))
async def copy_alias(rooms: Rooms, who: Who, alias: AliasName, body: CopyIn) -> dict[str, Any]:
    """A second alias of the same file with the same parameters."""
    name = _given_name(body.alias)
    entry = await find_entry(rooms, who, alias)
    await _refuse_taken(rooms, name)
    if entry.model is not None:
        return entry_of(await rooms.models.copy(entry.model.id, name, who)).to_json()
    source = Source("hub", repo=entry.repo, file=entry.filename, revision=entry.snapshot)
    new = NewModel(source, name=name, engine=ENGINE, origin=ORIGIN, policy=AT_NEXT_REQUEST)
    return entry_of(await rooms.models.create(new, who)).to_json()


def _given_name(name: str | None) -> str:
    if not name:
        raise AliasMissing("the request does not say what the alias is called", field="alias")
    return name


async def _refuse_taken(rooms: Services, name: str) -> None:
    """An alias is unique, also among the automatic ones. Raises NameTaken."""
    if rooms.models.find(name) is not None or await rooms.automatic.find(name) is not None:
        raise NameTaken(f"alias {name!r} already exists", hint="Choose another, or change it.", alias=name)


async def _source(rooms: Services, repo: str, filename: str, snapshot: str) -> tuple[Source, dict[str, Any]]:
    """The file at the commit that the snapshot means, and what to remember of the request."""
    commit = await commit_of(rooms, repo, filename, snapshot)
    return Source("hub", repo=repo, file=filename, revision=commit), {"snapshot": snapshot}


async def _changes(rooms: Services, entry: Entry, body: AliasChanges) -> dict[str, Any]:
    """The changes of a model's record; under ORIGIN what to remember. Raises what is wrong with them."""
    changes: dict[str, Any] = {}
    if body.request_params is not None:
        changes["request_defaults"] = replacing(REQUEST_PARAMS, body.request_params, REQUEST)
    if body.context_params is not None:
        changes["options"] = replacing(CONTEXT_PARAMS, body.context_params, CONTEXT)
    if any(value is not None for value in (body.repo, body.filename, body.snapshot)):
        repo = entry.repo if body.repo is None else check_repo(body.repo)
        before = requested_snapshot(entry.model) if entry.model and repo == entry.repo else MAIN
        changes["source"], changes[ORIGIN] = await _source(
            rooms, repo, body.filename or entry.filename, body.snapshot or before
        )
    elif changes and entry.source == "model":
        changes["source"] = Source("hub", repo=entry.repo, file=entry.filename, revision=entry.snapshot)
    if "options" in changes or "source" in changes:
        changes["policy"] = AT_NEXT_REQUEST
    return changes
