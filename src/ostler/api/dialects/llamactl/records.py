"""An instance of llamactl as a record of ours, and back.

What the record says is shown from it, also where somebody changed it by another way. `dialect_data` keeps
what was sent (secrets never): its names and values are given back for as long as the record says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError

from ostler.api.dialects.llamactl import backend_options
from ostler.api.dialects.llamactl.backend_options import BACKENDS, ENGINES, MLX, Said
from ostler.api.dialects.llamactl.door import LlamactlBody
from ostler.api.services import Services
from ostler.api.shapes import hide_env
from ostler.core.errors import InvalidField, OstlerError, Unsupported
from ostler.core.launch import HIDDEN
from ostler.core.settings import Settings
from ostler.hub.specs import parse_spec
from ostler.models.records import HUB_TOKEN, Model, NewModel, Policy, Source
from ostler.models.sources import source_of

ORIGIN = "llamactl"
LONGEST_S = 10**9
PRESET, NODES = "preset_ini", "nodes"
LATEST = "latest"
"""The tag that names no quantization."""
_KEPT = ("backend_options", PRESET, NODES)


class OptionsIn(LlamactlBody):
    """The options of an instance. What is left out holds as the server's settings say."""

    backend_type: StrictStr
    backend_options: dict[str, Any] | None = None
    auto_restart: StrictBool | None = None
    max_restarts: StrictInt | None = None
    restart_delay: StrictInt | None = None
    on_demand_start: StrictBool | None = None
    idle_timeout: StrictInt | None = None
    environment: dict[StrictStr, StrictStr] | None = None
    preset_ini: StrictStr | None = Field(None, max_length=1_000_000)
    docker_enabled: StrictBool | None = None
    command_override: StrictStr | None = Field(None, max_length=10_000)
    group: StrictStr | None = None
    nodes: list[StrictStr] | None = None


class BadBackend(InvalidField):
    """No backend of this name, or none at all."""

    hint = f"One of: {', '.join(ENGINES)}."


def engine_of(backend: str) -> str:
    """Our engine of a backend. Raises BadBackend, Unsupported for one that is not here."""
    if backend == MLX:
        raise Unsupported(
            "there is no mlx_lm here: it runs on Apple's GPUs only",
            hint="llama.cpp uses them too (Metal): take a GGUF file and the backend llama_cpp.",
        )
    if backend not in ENGINES:
        raise BadBackend("backend_type", f"unknown backend_type {backend[:50]!r}")
    return ENGINES[backend]


def new_model_of(rooms: Services, name: str | None, sent: OptionsIn, before: Model | None = None) -> NewModel:
    """The record that a body means; `before` gives the values of secrets that come back hidden.

    Raises InvalidField, Unsupported.
    """
    engine = engine_of(sent.backend_type)
    given = sent.backend_options or {}
    said = backend_options.read(rooms.engines.get(engine).options, _shown_again(rooms, given, before))
    in_docker = sent.docker_enabled is True
    override = (sent.command_override or "").strip() or None
    env = {
        key: before.env.get(key, "") if value == HIDDEN and before else value
        for key, value in (sent.environment or {}).items()
    }
    if said.hub_token is not None:
        env[HUB_TOKEN] = said.hub_token
    if HIDDEN in env.values():
        raise InvalidField("environment", f"{HIDDEN} stands for a hidden secret", hint="Send the real value.")
    return NewModel(
        source=source_meant(said),
        name=name,
        engine=engine,
        runtime="docker" if in_docker else "process",
        engine_command=None if in_docker else override,
        options=said.options,
        extra_args=said.extra_args,
        env=env,
        policy=_policy(sent),
        origin=ORIGIN,
        dialect_data={ORIGIN: _kept(sent)},
    )


def stored_model_of(rooms: Services, name: str, options: Mapping[str, Any]) -> NewModel:
    """The record that llamactl's own stored options mean. Raises as `new_model_of` does."""
    try:
        sent = OptionsIn.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "options"
        raise InvalidField(field, f"{field}: {first['msg']}") from error
    return new_model_of(rooms, name, sent)


def _shown_again(rooms: Services, given: Mapping[str, Any], before: Model | None) -> Mapping[str, Any]:
    """The options, with secrets that were shown hidden as they are in the record."""
    if HIDDEN not in str(given):
        return given
    real = derived(rooms, before) if before is not None else {}
    extra, real_extra = given.get(backend_options.EXTRA), real.get(backend_options.EXTRA) or {}
    shown = {name: real.get(name) if value == HIDDEN else value for name, value in given.items()}
    if isinstance(extra, Mapping):
        shown[backend_options.EXTRA] = {
            name: real_extra.get(name) if value == HIDDEN else value for name, value in extra.items()
        }
    return shown


def source_meant(said: Said) -> Source | Mapping[str, Any]:
    """The source of what was said; of neither path nor repo, that there is none. Raises BadSpec."""
    if said.path:
        return {"path": said.path}
    if not said.repo:
        return Source("none")
    source = source_of(parse_spec(said.repo))
    if said.file:
        return {"repo": str(source.repo), "file": said.file}
    return replace(source, tag=None) if source.tag == LATEST else source


def _policy(sent: OptionsIn) -> dict[str, Any]:
    policy: dict[str, Any] = {"on_demand": sent.on_demand_start is not False}
    if sent.auto_restart is False:
        policy["restart_limit"] = 0
    elif sent.max_restarts is not None:
        policy["restart_limit"] = min(LONGEST_S, max(0, sent.max_restarts))
    if sent.restart_delay is not None:
        policy["restart_delay_s"] = min(LONGEST_S, max(0, sent.restart_delay))
    if sent.idle_timeout is not None:
        policy["idle_timeout_s"] = min(LONGEST_S, max(0, sent.idle_timeout) * 60)
    try:
        Policy.from_json({"group": sent.group or None})
    except InvalidField:  # llamactl clears a group that is none
        return policy
    return {**policy, "group": sent.group or None}


def _kept(sent: OptionsIn) -> dict[str, Any]:
    values = {name: getattr(sent, name) for name in _KEPT}
    if sent.backend_options:
        values["backend_options"] = backend_options.never_kept(sent.backend_options)
    if sent.docker_enabled and sent.command_override:
        values["command_override"] = sent.command_override
    if sent.auto_restart is False:
        values["max_restarts"] = sent.max_restarts
    return {name: value for name, value in values.items() if value}


def options_out(rooms: Services, model: Model) -> dict[str, Any]:
    """The options of an instance, whoever made the model; secrets are hidden."""
    settings, policy, kept = rooms.settings.current, model.policy, _own(model)
    limit = settings.restart_limit if policy.restart_limit is None else policy.restart_limit
    delay_s = settings.restart_backoff_s if policy.restart_delay_s is None else policy.restart_delay_s
    shown: dict[str, Any] = {
        "nodes": sorted(kept.get(NODES) or ()),
        "backend_type": BACKENDS.get(model.engine, model.engine),
        "backend_options": backend_options.without_secrets(_backend_options(rooms, model)),
        "auto_restart": limit > 0,
        "max_restarts": limit or kept.get("max_restarts", 0),
        "restart_delay": round(delay_s),
        "on_demand_start": policy.on_demand,
        "idle_timeout": idle_minutes(policy, settings),
        "environment": hide_env(model.env),
        PRESET: kept.get(PRESET),
        "docker_enabled": True if model.runtime == "docker" else None,
        "command_override": model.engine_command or kept.get("command_override"),
        "group": policy.group,
    }
    always = ("backend_options", "auto_restart", "on_demand_start")
    return {name: value for name, value in shown.items() if name in always or value not in (None, "", [], {})}


def idle_minutes(policy: Policy, settings: Settings) -> int:
    """Minutes without a request after which it stops; less than one counts as one, 0 is never."""
    own = policy.idle_timeout_s
    if own is None and policy.pinned:
        return 0
    timeout_s = settings.idle_timeout_s if own is None else own
    return max(1, round(timeout_s / 60)) if timeout_s else 0


def _own(model: Model) -> Mapping[str, Any]:
    own = model.dialect_data.get(ORIGIN)
    return own if isinstance(own, Mapping) else {}


def _backend_options(rooms: Services, model: Model) -> dict[str, Any]:
    """As they were sent, where the record still says that; else as the record says it."""
    from_record = derived(rooms, model)
    sent = _own(model).get("backend_options")
    if not isinstance(sent, Mapping):
        return from_record
    table = rooms.engines.get(model.engine).options
    try:
        said = backend_options.read(table, sent)
    except OstlerError:
        return from_record
    is_same = said.options == dict(model.options) and said.extra_args == model.extra_args
    return dict(sorted(sent.items())) if is_same and _is_same_source(said, model.source) else from_record


def _is_same_source(said: Said, source: Source) -> bool:
    if source.kind == "none":
        return not said.path and not said.repo
    if source.kind == "file":
        return bool(said.path) and (
            said.path == source.path or str(source.path).endswith(f"/{Path(str(said.path))}")
        )
    meant = source_meant(said)
    found = meant if isinstance(meant, Source) else Source("hub", **meant) if "repo" in meant else None
    return found is not None and (found.repo, found.file, found.tag) == (source.repo, source.file, source.tag)


def derived(rooms: Services, model: Model) -> dict[str, Any]:
    """`backend_options` by what the record says alone."""
    table = rooms.engines.get(model.engine).options
    found = backend_options.written(table, model.options, model.extra_args)
    return dict(sorted({**found, **model_words(model.source, BACKENDS.get(model.engine, ""))}.items()))


def model_words(source: Source, backend: str) -> dict[str, str]:
    """How a source is said: `model`, or `hf_repo` with `hf_file`."""
    if source.kind == "none":
        return {}
    if source.kind == "file":
        return {"model": source.path or ""}
    if backend != "llama_cpp":
        return {"model": source.repo or ""}
    repo = f"{source.repo}:{source.tag}" if source.tag else str(source.repo)
    return {"hf_repo": repo, **({"hf_file": source.file} if source.file else {})}


def replacing(model: Model, new: NewModel) -> dict[str, Any]:
    """The changes that make the record of `model` say what `new` says; what llamactl does not know stays."""
    policy = dict.fromkeys(("on_demand", "idle_timeout_s", "restart_limit", "restart_delay_s", "group"))
    return {
        "source": new.source,
        "engine": new.engine,
        "runtime": new.runtime,
        "engine_command": new.engine_command,
        "extra_args": new.extra_args,
        "options": {**dict.fromkeys(model.options), **new.options},
        "env": {**dict.fromkeys(model.env), **new.env},
        "policy": {**policy, **new.policy},
        "dialect_data": {**model.dialect_data, **new.dialect_data},
    }
