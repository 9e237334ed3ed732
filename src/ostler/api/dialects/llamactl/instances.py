"""Instances: make, show, change, delete, start, stop and restart them, and read their logs.

An instance is a model; models that were made elsewhere are instances too. What goes on to an engine
(`.../proxy/*`) is the gateway's work: see `forwarding.py`. A start that is asked for here is answered when
the engine is ready or has failed; one that has an idle timeout stops when nobody asks it anything, as if a
request had started it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Path, Query, Response

from ostler.access.names import may_use
from ostler.api.dialects.base import Refused
from ostler.api.dialects.llamactl.door import LlamactlRouter, management
from ostler.api.dialects.llamactl.errors import says
from ostler.api.dialects.llamactl.nodes import LOCAL, NodeNotFound
from ostler.api.dialects.llamactl.records import OptionsIn, new_model_of, options_out, replacing
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import NotAllowed, UpstreamError
from ostler.core.principals import Principal
from ostler.core.states import InstanceState, JobState
from ostler.instances.views import InstanceView
from ostler.models.index import ModelNotFound
from ostler.models.names import check_name
from ostler.models.records import Model

routes = LlamactlRouter("instances")

ROOT = "/api/v1/instances"
FETCH_S = 7 * 24 * 3600.0
"""The longest that a start waits for its files."""
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,50}")
_COMES_UP = (InstanceState.STARTING, InstanceState.LOADING)

Name = Annotated[str, Path(max_length=600)]


class NotFetched(UpstreamError):
    """The files of an instance could not be fetched."""


@routes.group_root("GET", ROOT, **management())
async def list_instances(rooms: Rooms, who: Who) -> list[dict[str, Any]]:
    """Every instance, by name."""
    return [
        instance_out(rooms, model)
        for model in rooms.models.all()
        if not model.archived and may_use(who, *model.listed_as)
    ]


@routes.at("GET", f"{ROOT}/{{name:path}}/logs", dependencies=[says("logs_failed")], **management())
async def read_logs(
    rooms: Rooms, who: Who, name: Name, lines: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """The log of the newest start as text; the last `lines` of it where that is more than 0."""
    model = instance(rooms, who, name)
    if lines and not re.fullmatch(r"[+-]?\d+", lines):
        raise Refused("invalid_parameter", f"lines must be a whole number, not {lines!r}")
    wanted = int(lines or 0)
    tail = wanted if wanted > 0 else None
    text = "\n".join([line.rstrip("\n") async for line in rooms.instances.logs(model.id, tail=tail)])
    return Response(text, media_type="text/plain")


@routes.at("POST", f"{ROOT}/{{name:path}}/start", dependencies=[says("start_failed")], **management())
async def start_instance(rooms: Rooms, who: Who, name: Name) -> dict[str, Any]:
    """Start it, and answer when it is ready; files of the hub that are not here are fetched first.

    A model of a cache of the Hub, by its name there, becomes an instance now.
    """
    if await rooms.automatic.find(name) is not None and may_use(who, name):
        await rooms.automatic.adopt(name, who)
    model = instance(rooms, who, name)
    await bring_up(rooms, who, model)
    return instance_out(rooms, model)


@routes.at("POST", f"{ROOT}/{{name:path}}/stop", dependencies=[says("stop_failed")], **management())
async def stop_instance(rooms: Rooms, who: Who, name: Name) -> dict[str, Any]:
    """Stop it, and answer when it is gone. Requests in flight may end first."""
    model = instance(rooms, who, name)
    await rooms.instances.stop(model.id, who)
    return instance_out(rooms, model)


@routes.at("POST", f"{ROOT}/{{name:path}}/restart", dependencies=[says("restart_failed")], **management())
async def restart_instance(rooms: Rooms, who: Who, name: Name) -> dict[str, Any]:
    """Stop it and start it anew, also where it was stopped."""
    model = instance(rooms, who, name)
    await rooms.instances.stop(model.id, who)
    await bring_up(rooms, who, model)
    return instance_out(rooms, model)


@routes.group_root(
    "POST", f"{ROOT}/{{name:path}}", status_code=201, dependencies=[says("create_failed")], **management()
)
async def create_instance(rooms: Rooms, who: Who, name: Name, body: OptionsIn) -> dict[str, Any]:
    """Make an instance; it is stopped. Its files may still have to come."""
    name = name.rstrip("/")
    if not _NAME.fullmatch(name):
        raise Refused(
            "invalid_instance_name", f"{name[:60]!r} cannot be a name: 1 to 50 letters, digits and . _ -"
        )
    check_name(name)
    _check_nodes(rooms, body)
    made = await rooms.models.create(new_model_of(rooms, name, body), who, files_may_come=True)
    return instance_out(rooms, made)


@routes.group_root("GET", f"{ROOT}/{{name:path}}", **management())
async def show_instance(rooms: Rooms, who: Who, name: Name) -> dict[str, Any]:
    """One instance."""
    return instance_out(rooms, instance(rooms, who, name))


@routes.group_root("PUT", f"{ROOT}/{{name:path}}", dependencies=[says("update_failed")], **management())
async def update_instance(rooms: Rooms, who: Who, name: Name, body: OptionsIn) -> dict[str, Any]:
    """Replace all its options; one that runs is stopped and started with the new ones."""
    model = instance(rooms, who, name)
    changes = replacing(model, new_model_of(rooms, model.name, body, before=model))
    changed = await rooms.models.update(model.id, changes, who, files_may_come=True)
    if rooms.instances.view(model.id).state.is_active:
        await rooms.instances.stop(model.id, who)
        await bring_up(rooms, who, changed)
    return instance_out(rooms, changed)


@routes.group_root(
    "DELETE", f"{ROOT}/{{name:path}}", status_code=204, dependencies=[says("delete_failed")], **management()
)
async def delete_instance(rooms: Rooms, who: Who, name: Name) -> Response:
    """Delete its record; its files are kept. One that runs is refused."""
    await rooms.models.delete(instance(rooms, who, name).id, who)
    return Response(status_code=204)


def instance(rooms: Services, who: Principal, name: str) -> Model:
    """The model of that name. Raises ModelNotFound, NotAllowed."""
    name = name.rstrip("/")
    model = rooms.models.find(name)
    if model is None or model.archived:
        near = rooms.models.near(name)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"See them with: GET {ROOT}"
        raise ModelNotFound(f"instance with name {name[:200]} not found", hint=hint, model=name[:200])
    if not may_use(who, *model.listed_as):
        raise NotAllowed("permission denied: key does not have access to this instance", model=model.name)
    return model


def instance_out(rooms: Services, model: Model) -> dict[str, Any]:
    """An instance as llamactl shows it; `reason` says more of its status, where there is more."""
    model = rooms.models.get(model.id)
    view = rooms.instances.view(model.id)
    shown = {
        "id": model.id,
        "name": model.name,
        "status": status_word(view),
        "created": int(model.created_at.timestamp()),
        "options": options_out(rooms, model),
    }
    return {**shown, "reason": view.reason} if view.reason else shown


def status_word(view: InstanceView) -> str:
    """llamactl's word for a state. It has none for an engine that is not ready yet: `restarting` says that
    one is on its way without anybody's doing.
    """
    if view.state is InstanceState.STOPPING:
        return "shutting_down"
    return "restarting" if view.state in _COMES_UP or view.is_restarting else view.state.value


async def bring_up(rooms: Services, who: Principal, model: Model) -> None:
    """Start it and wait until it is ready. Raises what a download and a start may raise."""
    await _fetch(rooms, who, model)
    policy = model.policy
    timeout_s = (
        rooms.settings.current.idle_timeout_s if policy.idle_timeout_s is None else policy.idle_timeout_s
    )
    await rooms.instances.start(model.id, who, keep=not timeout_s or policy.pinned)


async def _fetch(rooms: Services, who: Principal, model: Model) -> None:
    source = model.source
    if source.kind != "hub":
        return
    files = await rooms.library.find(
        repo=source.repo, file=source.file, tag=source.tag, revision=source.revision
    )
    if files is not None and files.complete:
        return
    job = await rooms.downloads.pull(source.label, principal=who, for_model=model.id)
    ended = await rooms.jobs.wait(job.id, FETCH_S)
    if ended.state is not JobState.SUCCEEDED:
        error = ended.error or {}
        why = error.get("message") or f"its download is {ended.state.value}"
        raise NotFetched(
            f"{source.label} could not be fetched: {why}", hint=error.get("hint"), model=model.name
        )


def _check_nodes(rooms: Services, body: OptionsIn) -> None:
    others = [node for node in body.nodes or () if node not in (LOCAL, rooms.node)]
    if others:
        raise NodeNotFound(f"node {others[0][:100]} not found", node=others[0][:100])
