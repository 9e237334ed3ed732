"""Making a model: from one that is here, or from files that were sent before."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from ostler.api.dialects.ollama import options
from ostler.api.dialects.ollama.answering import Framing
from ostler.api.dialects.ollama.asking import MessageIn, NotHere
from ostler.api.dialects.ollama.door import NamedBody, router
from ostler.api.dialects.ollama.names import check, own_name, stored
from ostler.api.dialects.ollama.pulling import SUCCESS, done, stream
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from ostler.downloads.uploads import BlobNotFound
from ostler.models.checks import as_new
from ostler.models.records import Model, NewModel
from ostler.models.service import NameTaken

routes = router("creating")

ORIGIN = "ollama"
_GO_TEMPLATE = (".Prompt", ".System", ".Messages", ".Response", ".Content", ".Role", ".Tools")
Digest = Annotated[str, Path(max_length=200)]


class CreateIn(NamedBody):
    """A new model. `from` names the one that it is made from, `files` the digests of files that were sent."""

    source: str | None = Field(None, alias="from")
    stream: bool | None = None
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: list[MessageIn] | None = None
    quantize: str | None = None
    modelfile: str | None = None


@routes.post("/api/create", **needs(Role.POWER_USER))
async def create_model(rooms: Rooms, who: Who, body: CreateIn, request: Request) -> Response:
    """Make a model, or make one anew that was made here before."""
    _refuse_what_is_not_here(body)
    name = own_name(body.its_name)
    before = rooms.models.find(name)
    if before is not None and before.origin != ORIGIN:
        raise NameTaken(
            f"the name {name} belongs to a model that was not made by ollama create",
            hint=f"Choose another name, or look at it with: ostler show {before.name}",
        )
    if body.files:
        await _create_from_files(rooms, who, name, before, body)
    elif body.source:
        original = await stored(rooms, body.source, who)
        await _store(rooms, who, before, _changed(as_new(original), name, original.engine, body))
    else:
        raise InvalidField("from", "from or files is needed", hint='Such as "from": "demo".')
    if body.stream is False:
        return JSONResponse(SUCCESS)
    framing = Framing(wants_stream=True, accept=request.headers.get("accept", ""))
    statuses = ("reading model metadata", "creating model", "writing manifest", "success")
    return stream(rooms, framing, done([{"status": status} for status in statuses]))


@routes.head("/api/blobs/{digest}", **needs(Role.USER))
async def has_blob(rooms: Rooms, who: Who, digest: Digest) -> Response:
    """Is the file with this hash here?"""
    if not await rooms.uploads.has(digest):
        raise BlobNotFound(f"the file {digest[:100]} was not sent here")
    return Response(status_code=200)


@routes.post("/api/blobs/{digest}", status_code=201, **needs(Role.POWER_USER))
async def receive_blob(rooms: Rooms, who: Who, digest: Digest, request: Request) -> Response:
    """Take a file in: as large as the disk allows, written as it comes, kept only if its hash is right."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else None
    try:
        is_new = await rooms.uploads.receive(digest, request.stream(), size, who)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it: nothing of the file was kept
    return Response(status_code=201 if is_new else 200)


async def _create_from_files(
    rooms: Services, who: Principal, name: str, before: Model | None, body: CreateIn
) -> None:
    async with rooms.uploads.placed(body.files or {}) as path:
        await rooms.library.refresh()
        await rooms.library.inspect(path)  # what cannot be loaded is refused now, not at the first request
        new = NewModel(source={"path": str(path)}, name=name)
        previewed = await rooms.models.preview(new, who)
        new = replace(new, engine=previewed.engine)
        await _store(rooms, who, before, _changed(new, name, previewed.engine, body, uploaded=True))


def _changed(new: NewModel, name: str, engine: str, body: CreateIn, *, uploaded: bool = False) -> NewModel:
    """The recipe with what the body says: parameters, system, template, and what only Ollama keeps."""
    given = options.check(body.parameters, "parameters")
    defaults = {**new.request_defaults, **options.sampling(given, engine)}
    engine_options = dict(new.options)
    if engine == options.LLAMACPP:
        engine_options |= options.at_start(given)
    elif "num_ctx" in given:
        engine_options["context_length"] = given["num_ctx"]
    if body.system is not None:
        defaults["system_prompt"] = body.system
    if body.template:
        engine_options["chat_template"] = body.template
    kept = dict(new.dialect_data.get(ORIGIN) or {})
    if uploaded:
        kept["uploaded"] = True
    if body.license:
        kept["license"] = body.license if isinstance(body.license, str) else "\n\n".join(body.license)
    if body.messages is not None:
        kept["messages"] = [message.model_dump(exclude_none=True) for message in body.messages]
    return replace(
        new,
        name=name,
        aliases=(),
        origin=ORIGIN,
        read_only=False,
        options=engine_options,
        request_defaults={key: value for key, value in defaults.items() if value not in (None, "")},
        dialect_data={**new.dialect_data, ORIGIN: kept},
    )


async def _store(rooms: Services, who: Principal, before: Model | None, new: NewModel) -> None:
    if before is None:
        await rooms.models.create(new, who)
        return
    changes: dict[str, Any] = {"source": new.source, "engine": new.engine, "dialect_data": new.dialect_data}
    for name in ("options", "request_defaults"):
        old, fresh = getattr(before, name), getattr(new, name)
        changes[name] = {**dict.fromkeys(old.keys() - fresh.keys()), **fresh}
    await rooms.models.update(before.id, changes, who)


def _refuse_what_is_not_here(body: CreateIn) -> None:
    check(body.its_name)
    if body.modelfile is not None:
        raise NotHere("a Modelfile is not read here", hint="Send its parts as fields: from, parameters, ...")
    if body.quantize:
        raise NotHere("models are not quantized here", hint="Pull or upload a file that is.")
    if body.adapters:
        raise NotHere("adapters are not taken here", hint="Give the model the option lora.")
    if body.template and any(word in body.template for word in _GO_TEMPLATE):
        raise NotHere(
            "templates of Ollama's kind are not understood here",
            hint="The file's own chat template is used; a Jinja template may be sent in its place.",
        )
