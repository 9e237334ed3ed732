"""What a model is: plain values, ready for JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from ostler.core.errors import InvalidField
from ostler.core.near import near_names
from ostler.core.states import DesiredState

HOST_DEVICE = "cpu"
ASK, NEXT_REQUEST = "ask", "next_request"
HUB_TOKEN = "HF_TOKEN"
"""The variable of a model's environment that is the hub's token for its own files, and for nothing else."""

MAX_DEVICES = 64
FITS_NOT = "does_not_fit"
"""The code of an error that may be ignored: its memory is not there."""
_DEVICE_ID = re.compile(r"[a-z]{2,20}:[\w-]{1,60}|cpu", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,50}")
ORIGINS = ("native", "cortex", "llamactl", "bodhi", "ollama", "catalog", "library")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights are.

    A `file` source has a `path`: absolute, a file (first shard) or a safetensors folder. A `hub`
    source names a repo with a quantization `tag` or a `file`, and a `revision` (branch or commit). With
    `none` the recipe is kept and cannot be started.
    """

    kind: Literal["file", "hub", "none"]
    path: str | None = None
    repo: str | None = None
    file: str | None = None
    tag: str | None = None
    revision: str | None = None

    @property
    def label(self) -> str:
        """One line that a person recognises: the path, or `org/repo:tag@revision`."""
        if self.kind != "hub":
            return self.path or ""
        selector = self.file or self.tag
        return (
            f"{self.repo}{':' + selector if selector else ''}{'@' + self.revision if self.revision else ''}"
        )

    def to_json(self) -> dict[str, Any]:
        """Only what is set."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """The inverse of `to_json`."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a model may come and go. None means that the server's setting holds.

    `on_demand`: a request may start it. `idle_timeout_s`: seconds without a request after which one
    that was started on demand stops (0: never). `pinned`: never evicted. `auto_start`: started with
    the server. `priority`: higher stays longer. `devices`: ids of the only devices that it may use, the best
    liked first; "cpu" alone keeps it off GPUs; none: all. `request_timeout_s`: the longest that an answer may
    take which is no stream; `stream_timeout_s`: the longest silence within a stream. `group`: those of one
    group share a limit of how many run at once (setting `group_limits`). `restart_delay_s`: the wait before
    each restart after a fault, in place of one that grows. `share`: it may use the running engine of another
    model with the same launch, and let others use its own. `apply_changes`: changed launch options of one
    that runs take effect when somebody applies them ("ask") or at the next request ("next_request").
    """

    on_demand: bool = True
    idle_timeout_s: float | None = None
    pinned: bool = False
    auto_start: bool = False
    restart_limit: int | None = None
    priority: int = 0
    start_timeout_s: float | None = None
    max_concurrency: int | None = None
    devices: tuple[str, ...] = ()
    request_timeout_s: float | None = None
    stream_timeout_s: float | None = None
    group: str | None = None
    restart_delay_s: float | None = None
    share: bool = True
    apply_changes: str = ASK

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return {**asdict(self), "devices": list(self.devices)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Read and check a policy. Raises InvalidField with the name of the field that is wrong."""
        known = {f.name for f in fields(cls)}
        for name, value in data.items():
            if name not in known:
                near = near_names(name, known)
                hint = f"Did you mean policy.{near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
                raise InvalidField(f"policy.{name}", f"unknown policy field {name!r}", hint=hint)
            _check_policy_value(name, value)
        given = {name: value for name, value in data.items() if value is not None or name in _OPTIONAL}
        return cls(**{**given, "devices": tuple(given.get("devices", ()))})


_OPTIONAL = {field.name for field in fields(Policy) if field.default is None}
_MINIMUM: Mapping[str, float] = {
    "idle_timeout_s": 0,
    "restart_limit": 0,
    "start_timeout_s": 0.1,
    "request_timeout_s": 0.1,
    "stream_timeout_s": 0.1,
    "restart_delay_s": 0,
    "max_concurrency": 1,
    "priority": -1000,
}
_MAXIMUM: Mapping[str, float] = {"priority": 1000}
_WHOLE = {"restart_limit", "max_concurrency", "priority"}


def _check_policy_value(name: str, value: Any) -> None:
    where = f"policy.{name}"
    if value is None:
        return
    if name == "devices":
        _check_devices(where, value)
        return
    if name == "group":
        if not isinstance(value, str) or not _GROUP.fullmatch(value):
            raise InvalidField(
                where, f"{str(value)[:80]!r} cannot be a group", hint="Letters, digits and . _ -, at most 50."
            )
        return
    if name == "apply_changes":
        if value not in (ASK, NEXT_REQUEST):
            raise InvalidField(where, f"{where} must be {ASK} or {NEXT_REQUEST}, not {value!r}")
        return
    if name in ("on_demand", "pinned", "auto_start", "share"):
        if not isinstance(value, bool):
            raise InvalidField(where, f"{where} must be true or false, not {value!r}")
        return
    number = int if name in _WHOLE else (int, float)
    if isinstance(value, bool) or not isinstance(value, number):
        kind = "a whole number" if name in _WHOLE else "a number"
        raise InvalidField(where, f"{where} must be {kind}, not {value!r}")
    if not _MINIMUM[name] <= value <= _MAXIMUM.get(name, 10**9):
        raise InvalidField(
            where, f"{where} must be from {_MINIMUM[name]:g} to {_MAXIMUM.get(name, 10**9):g}, not {value!r}"
        )


def _check_devices(where: str, value: Any) -> None:
    hint = 'Such as ["cuda:1"], ["cuda:1", "cuda:0"] (the best liked first) or ["cpu"]; see: ostler doctor'
    if not isinstance(value, list | tuple) or len(value) > MAX_DEVICES:
        raise InvalidField(where, f"{where} must be a list of at most {MAX_DEVICES} device ids", hint=hint)
    for id in value:
        if not isinstance(id, str) or _DEVICE_ID.fullmatch(id) is None:
            raise InvalidField(where, f"{where} holds {str(id)[:80]!r}, which is no device id", hint=hint)
    if len(set(value)) < len(value):
        raise InvalidField(where, f"{where} names a device twice", hint=hint)
    if HOST_DEVICE in value and len(value) > 1:
        raise InvalidField(
            where, f"{where} names GPUs and the CPU; what a GPU cannot hold is on the CPU anyway"
        )


@dataclass(frozen=True, slots=True)
class NewModel:
    """What is needed to create a model; everything but the source has a default.

    `engine` None: chosen by the file's format. `name` None: made from the source.
    `engine_command` None: the program is found as the settings say. `runtime_options` are the wishes for
    its container (`runtimes.container_options`).
    `source` is a Source, or what a person writes: {"path": ...} or {"hub": "org/repo:tag"}.
    """

    source: Source | Mapping[str, Any]
    name: str | None = None
    engine: str | None = None
    runtime: str = "process"
    engine_command: str | None = None
    description: str = ""
    task: str = ""
    aliases: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    request_defaults: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "native"
    read_only: bool = False
    dialect_data: Mapping[str, Any] = field(default_factory=dict)
    runtime_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A stored recipe. `revision` counts its changes, for optimistic locking.

    `ignored`: codes of errors of which a person said that it starts all the same.
    """

    id: int
    name: str
    aliases: tuple[str, ...]
    description: str
    origin: str
    read_only: bool
    engine: str
    runtime: str
    engine_command: str | None
    node: str
    task: str
    source: Source
    options: Mapping[str, Any]
    extra_args: tuple[str, ...]
    env: Mapping[str, str]
    request_defaults: Mapping[str, Any]
    policy: Policy
    dialect_data: Mapping[str, Any]
    desired_state: DesiredState
    archived: bool
    revision: int
    created_at: datetime
    updated_at: datetime
    ignored: frozenset[str] = frozenset()
    runtime_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a request may use."""
        return (self.name, *self.aliases)

    @property
    def listed_as(self) -> tuple[str, ...]:
        """What a key's allow-list may call it: its names, and `#` with its id, which no rename changes."""
        return (*self.names, f"#{self.id}")

    @property
    def hub_token(self) -> str | None:
        """The hub's token of its own; None where it has none."""
        return self.env.get(HUB_TOKEN) or None
