"""Models: create, read, change, delete, and start, stop and watch them.

A model's name may hold "/", ":" and "."; both `/models/org/repo:Q4` and `/models/org%2Frepo:Q4`
mean it. What follows the name (`/start`, `/logs`, ...) cannot be mistaken for a part of it: no name
with a slash may end in one of these words (`ostler.models.names.ACTIONS`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header, Path, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.native.instances import InstanceOut, never_ran, view_for
from ostler.api.native.meant import adopted, meant
from ostler.api.native.model_bodies import (
    ModelChanges,
    ModelIn,
    UnsavedIn,
    new_model_of,
    refuse_hidden,
    with_engine,
)
from ostler.api.native.model_list import Wanted, page_of_models
from ostler.api.native.model_shapes import (
    ModelDetailOut,
    ModelOut,
    memory_needs,
    model_out,
    model_with_files,
    models_with_files,
)
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Listing, PageOut, hide_args, hide_env, page_out
from ostler.api.streaming import text_lines
from ostler.core.errors import Conflict, InvalidField
from ostler.core.launch import HIDDEN
from ostler.core.principals import Role
from ostler.core.states import InstanceState
from ostler.models.records import FITS_NOT

routes = router("models")

Name = Annotated[
    str, Path(max_length=300, description="The model's name, an alias of it, or `id:` and its number.")
]
JsonObject = dict[str, Any]


class AutomaticStays(Conflict):
    """A model that is there because its files are cannot be deleted without them."""


class CopyIn(Body):
    """The copy's name."""

    name: str


class StartIn(Body):
    """`wait`: answer when it runs (200) or has failed; else at once (202). `keep`: it runs until it is
    stopped, also after a restart of the server; else it stops when idle, as if a request had started it.
    `ignore`: codes of errors in a dry run that do not matter; `ignore_fit` is short for `does_not_fit`.
    """

    wait: bool = True
    keep: bool = True
    ignore_fit: bool = False
    ignore: list[str] = Field(default_factory=list, max_length=50, examples=[["unknown_flag"]])


class DryRunIn(Body):
    """`ignore`: codes of errors that do not matter; they become warnings."""

    ignore: list[str] = Field(default_factory=list, max_length=50)


class StopIn(Body):
    """`now`: do not wait for requests in flight."""

    now: bool = False


@routes.get("/models", response_model=PageOut[ModelOut], **needs(Role.USER))
async def list_models(
    rooms: Rooms,
    who: Who,
    page: Listing,
    engine: Annotated[str | None, Query(max_length=50)] = None,
    origin: Annotated[str | None, Query(max_length=50)] = None,
    state: Annotated[InstanceState | None, Query(description="Only models in this state.")] = None,
    archived: bool | None = None,
    automatic: Annotated[bool | None, Query(description="Only automatic models, or none of them.")] = None,
) -> Any:
    """Every model that you may use, with its state; automatic ones too.

    Sort by name, created_at, updated_at, engine, origin or id.
    """
    wanted = Wanted(engine, origin, state, archived, automatic)
    found, files = await page_of_models(rooms, who, page, wanted)
    return page_out(found, await models_with_files(rooms, who, found.items, files))


@routes.post("/models", response_model=ModelDetailOut, status_code=201, **needs(Role.POWER_USER))
async def create_model(rooms: Rooms, who: Who, body: ModelIn) -> Any:
    """Create a model from a file on this machine or from a repo that was pulled."""
    refuse_hidden(body.extra_args, body.env)
    made = await rooms.models.create(new_model_of(rooms, body), who)
    return await model_with_files(rooms, who, made)


@routes.post("/models/{name:path}/start", response_model=InstanceOut, **needs(Role.POWER_USER))
async def start_model(
    rooms: Rooms, who: Who, name: Name, response: Response, body: StartIn | None = None
) -> Any:
    """Start a model. One that is starting already is not started twice; one that runs stays as it is."""
    model = await adopted(rooms, who, name)
    asked = body or StartIn()
    ignore = [*asked.ignore, *([FITS_NOT] if asked.ignore_fit else [])]
    view = await rooms.instances.start(model.name, who, wait=asked.wait, keep=asked.keep, ignore=ignore)
    response.status_code = 200 if view.state is InstanceState.RUNNING else 202
    return view_for(who, view)


@routes.post("/models/{name:path}/stop", response_model=InstanceOut, **needs(Role.POWER_USER))
async def stop_model(rooms: Rooms, who: Who, name: Name, body: StopIn | None = None) -> Any:
    """Stop a model: no new requests, those in flight end first, then the engine ends."""
    model = await meant(rooms, who, name)
    if not model.id:
        return never_ran(model)
    return view_for(who, await rooms.instances.stop(model.name, who, now=body.now if body else False))


@routes.post("/models/{name:path}/restart", response_model=InstanceOut, **needs(Role.POWER_USER))
async def restart_model(rooms: Rooms, who: Who, name: Name) -> Any:
    """Stop it and start it again."""
    model = await adopted(rooms, who, name)
    return view_for(who, await rooms.instances.restart(model.name, who))


@routes.post("/models/{name:path}/apply", response_model=InstanceOut, **needs(Role.POWER_USER))
async def apply_changes(rooms: Rooms, who: Who, name: Name) -> Any:
    """Restart it only if what runs differs from its recipe."""
    model = await meant(rooms, who, name)
    return view_for(who, await rooms.instances.apply(model.name, who)) if model.id else never_ran(model)


@routes.post("/dry-run", response_model=JsonObject, **needs(Role.POWER_USER))
async def dry_run_unsaved(rooms: Rooms, who: Who, body: UnsavedIn) -> Any:
    """The same for a recipe that is not saved: it is checked in full, and nothing is kept.

    Its files need not be here: for a source on the hub it says what is still to be downloaded.
    """
    refuse_hidden(body.extra_args, body.env)
    model = await rooms.models.preview(await with_engine(rooms, new_model_of(rooms, body)), who)
    answer = _dry_run_out(await rooms.instances.dry_run(model, ignore=body.ignore))
    return {**answer, "needs": await memory_needs(rooms, model)}


@routes.post("/models/{name:path}/dry-run", response_model=JsonObject, **needs(Role.POWER_USER))
async def dry_run(rooms: Rooms, who: Who, name: Name, body: DryRunIn | None = None) -> Any:
    """What exactly would run, what was chosen and why, whether and where it fits, who would leave, what is
    still to be downloaded, and all that is known to be wrong (`findings`); nothing is started.
    """
    model = await meant(rooms, who, name)
    ignore = body.ignore if body else ()
    answer = _dry_run_out(await rooms.instances.dry_run(model, ignore=ignore))
    return {**answer, "needs": await memory_needs(rooms, model)}


@routes.post(
    "/models/{name:path}/copy", response_model=ModelDetailOut, status_code=201, **needs(Role.POWER_USER)
)
async def copy_model(rooms: Rooms, who: Who, name: Name, body: CopyIn) -> Any:
    """A second model of the same files."""
    copied = await rooms.models.copy(await meant(rooms, who, name), body.name, who)
    return await model_with_files(rooms, who, copied)


@routes.get("/models/{name:path}/instance", response_model=InstanceOut, **needs(Role.USER))
async def show_instance(rooms: Rooms, who: Who, name: Name) -> Any:
    """The model's instance; `stopped` where it never ran."""
    model = await meant(rooms, who, name)
    return view_for(who, rooms.instances.view(model.id)) if model.id else never_ran(model)


@routes.get("/models/{name:path}/logs", response_class=StreamingResponse, **needs(Role.MANAGER))
async def read_logs(
    rooms: Rooms,
    who: Who,
    name: Name,
    tail: Annotated[int | None, Query(ge=0, le=100_000, description="Only the last lines.")] = None,
    follow: Annotated[bool, Query(description="Go on with new lines as they come.")] = False,
) -> Response:
    """The engine's log as plain text, oldest line first."""
    model = await meant(rooms, who, name)
    if not model.id:
        return PlainTextResponse("")
    lines: AsyncIterator[str] = rooms.instances.logs(model.name, tail=tail, follow=follow)
    return text_lines(lines, rooms.closing)


@routes.get("/models/{name:path}", response_model=ModelDetailOut, **needs(Role.USER))
async def show_model(rooms: Rooms, who: Who, name: Name, response: Response) -> Any:
    """One model, with its files and its instance. The header ETag holds its revision."""
    model = await meant(rooms, who, name)
    response.headers["ETag"] = f'"{model.revision}"'
    return await model_with_files(rooms, who, model)


@routes.patch("/models/{name:path}", response_model=ModelDetailOut, **needs(Role.POWER_USER))
async def change_model(
    rooms: Rooms,
    who: Who,
    name: Name,
    body: ModelChanges,
    response: Response,
    if_match: Annotated[str | None, Header(max_length=50)] = None,
) -> Any:
    """Change a model; one that runs keeps running as it is until `apply` (see `drift`)."""
    model = await adopted(rooms, who, name)
    changes = body.model_dump(exclude_unset=True, exclude={"revision"})
    if "source" in changes and body.source is not None:
        changes["source"] = body.source.model_dump(exclude_unset=True)
    for field in ("name", "source", "engine", "runtime"):
        if field in changes and changes[field] is None:
            raise InvalidField(field, f"{field} cannot be null")
    changes["env"] = {k: v for k, v in (body.env or {}).items() if v != HIDDEN}
    if not changes["env"]:
        del changes["env"]
    refuse_hidden(body.extra_args or [], {})
    expected = _revision(if_match) if if_match is not None else body.revision
    changed = await rooms.models.update(model.name, changes, who, expected_revision=expected)
    response.headers["ETag"] = f'"{changed.revision}"'
    return await model_with_files(rooms, who, changed)


@routes.delete("/models/{name:path}", response_model=ModelOut, **needs(Role.POWER_USER))
async def delete_model(rooms: Rooms, who: Who, name: Name) -> Any:
    """Delete the model. Its files are kept."""
    model = await meant(rooms, who, name)
    if not model.id:
        raise AutomaticStays(
            f"{model.name} is there because its files are: nothing else is stored of it",
            hint=f"Delete the files with: ostler rm {model.name} --files",
            model=model.name,
        )
    shown = model_out(rooms, who, model)
    await rooms.models.delete(model.name, who)
    return shown


def _revision(if_match: str) -> int | None:
    text = if_match.strip().removeprefix("W/").strip('"')
    if text == "*":
        return None
    if not text.isdecimal() or len(text) > 18:
        raise InvalidField("If-Match", f'If-Match must be a revision such as "3", not {if_match!r}')
    return int(text)


def _dry_run_out(run: Any) -> JsonObject:
    answer: JsonObject = run.to_json()
    answer["argv"] = hide_args(answer["argv"])
    answer["env"] = hide_env(answer["env"])
    spec = answer.get("spec")
    if isinstance(spec, dict):
        answer["spec"] = {
            **spec,
            "args": hide_args(spec.get("args") or ()),
            "env": hide_env(spec.get("env") or {}),
        }
    return answer
