"""What is sent of a model, and the recipe that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from ostler.api.services import Services
from ostler.api.shapes import Body
from ostler.core.errors import InvalidField
from ostler.core.launch import HIDDEN
from ostler.hub.specs import parse_spec
from ostler.models.records import HUB_TOKEN, NewModel
from ostler.models.sources import source_of

JsonObject = dict[str, Any]


class SourceIn(Body):
    """Where the weights are: `path` (absolute, or inside the models folder), `hub`, or the parts of it."""

    path: str | None = None
    hub: str | None = Field(None, examples=["org/repo:Q4_K_M"])
    kind: str | None = None
    repo: str | None = None
    file: str | None = None
    tag: str | None = None
    revision: str | None = None


class ModelIn(Body):
    """A new model. Without `name` one is made from the source; without `engine` the format decides.

    `command_line` is a llama-server or vLLM command to take options (and the source) from.
    """

    name: str | None = None
    source: SourceIn | None = None
    engine: str | None = None
    runtime: str = "process"
    runtime_options: JsonObject = Field(
        default_factory=dict, description="Wishes for its container: image, shm_size, memory, ..."
    )
    engine_command: str | None = Field(
        None,
        max_length=10_000,
        description="The program that serves it, in place of the found one; admins only.",
    )
    description: str = Field("", max_length=10_000)
    task: str = Field("", max_length=100)
    aliases: list[str] = Field(default_factory=list, max_length=100)
    options: JsonObject = Field(default_factory=dict)
    extra_args: list[str] = Field(default_factory=list, max_length=1_000)
    env: dict[str, str] = Field(default_factory=dict)
    request_defaults: JsonObject = Field(default_factory=dict)
    policy: JsonObject = Field(default_factory=dict)
    command_line: str | None = Field(None, max_length=100_000)


class UnsavedIn(ModelIn):
    """A recipe to try. `ignore`: codes of errors that do not matter; they become warnings."""

    ignore: list[str] = Field(default_factory=list, max_length=50)


class ModelChanges(Body):
    """What to change. Objects are merged key by key, null takes a key out (RFC 7396)."""

    name: str | None = None
    source: SourceIn | None = None
    engine: str | None = None
    runtime: str | None = None
    runtime_options: JsonObject | None = None
    engine_command: str | None = Field(None, max_length=10_000)
    description: str | None = Field(None, max_length=10_000)
    task: str | None = Field(None, max_length=100)
    aliases: list[str] | None = Field(None, max_length=100)
    options: JsonObject | None = None
    extra_args: list[str] | None = Field(None, max_length=1_000)
    env: dict[str, str | None] | None = None
    request_defaults: JsonObject | None = None
    policy: JsonObject | None = None
    archived: bool | None = None
    revision: int | None = Field(None, description="The revision that the change is based on.")


def new_model_of(rooms: Services, body: ModelIn) -> NewModel:
    """The recipe that a body says, with what its command line says. Raises InvalidField."""
    given = body.model_dump(exclude_unset=True, exclude={"command_line", "source", "ignore"})
    source: Mapping[str, Any] = body.source.model_dump(exclude_unset=True) if body.source else {}
    if body.command_line is not None:
        engine = (
            rooms.engines.get(body.engine) if body.engine else rooms.engines.for_command(body.command_line)
        )
        parsed = engine.options.parse_command(body.command_line)
        given["options"] = {**parsed.options, **body.options}
        given["extra_args"] = [*parsed.extra_args, *body.extra_args]
        given["env"] = {**parsed.env, **body.env}
        if not source and (parsed.model or parsed.hub):
            source = {"path": parsed.model} if parsed.model else {"hub": parsed.hub}
        if parsed.alias and "name" not in given:
            given["name"] = parsed.alias
    if not source:
        raise InvalidField(
            "source", "a model needs a source", hint='{"path": "..."} or {"hub": "org/repo:Q4_K_M"}'
        )
    for field in ("aliases", "extra_args"):
        if field in given:
            given[field] = tuple(given[field])
    return NewModel(source=source, **given)


async def with_engine(rooms: Services, new: NewModel) -> NewModel:
    """The recipe with the engine that the hub's files ask for, where none of them is here to say."""
    source = new.source
    hub = source.get("hub") if isinstance(source, Mapping) else None
    if new.engine is not None or not isinstance(hub, str):
        return new
    spec = parse_spec(hub, endpoint=rooms.hub.endpoint)
    wanted = source_of(spec)
    if await rooms.library.find(repo=wanted.repo, file=wanted.file, tag=wanted.tag, revision=wanted.revision):
        return new
    return replace(
        new,
        engine=rooms.engines.for_format(
            (await rooms.hub.with_token(new.env.get(HUB_TOKEN)).resolve(spec)).format
        ).name,
    )


def refuse_hidden(args: list[str], env: Mapping[str, str]) -> None:
    """Raise InvalidField where what is shown in the place of a secret was sent back."""
    if any(HIDDEN in text for text in (*args, *env.values())):
        raise InvalidField(
            "env", f"{HIDDEN} stands for a hidden secret and cannot be stored", hint="Send the real value."
        )
