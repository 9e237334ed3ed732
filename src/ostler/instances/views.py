"""What is shown of an instance: plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ostler.core.findings import Finding
from ostler.core.states import InstanceState


class StartCause(StrEnum):
    """Why an engine was started; only those started on demand stop when idle."""

    PERSON = "person"
    DEMAND = "demand"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an instance failed, in words that a person can act on.

    `reason` is one sentence, `hint` the next step. `diagnosis` names a known cause found in the
    log. `exit_code` is None where unknown or where the engine did not end by itself.
    """

    reason: str
    hint: str | None = None
    diagnosis: str | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    log_tail: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "log_tail": list(self.log_tail)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        """The inverse of `to_json`."""
        return cls(**{**data, "log_tail": tuple(data.get("log_tail") or ())})


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One model's instance as it is now; `stopped` with id None when it was never started.

    `url` is internal: doors show it to administrators only. `drift`: what runs differs from what
    the stored recipe would run. `expires_at`: when it stops for being idle, None for never or while
    it serves. `memory_bytes` is measured, `estimated_bytes` what was expected before it was started,
    both over all devices. `restarts`: after faults, in a row. `load_seconds`: from
    launch to ready. `failure` is `Failure.to_json`. `devices` are those that its engine was given; none: all.
    `shares` names the model whose engine it uses, `shared_with` those that use its own: state, process and
    times of such an engine are shown of each, its memory only where it is owned.
    `context_length`: tokens that one request may have, prompt and answer together, as the engine says.
    `is_restarting`: it has failed and is started again by itself.
    """

    id: int | None
    model_id: int
    model_name: str
    node: str
    runtime: str
    engine: str
    state: InstanceState
    reason: str | None = None
    hint: str | None = None
    failure: Mapping[str, Any] | None = None
    url: str | None = None
    spec_digest: str | None = None
    drift: bool = False
    pid: int | None = None
    cause: StartCause | None = None
    actor: str | None = None
    created_at: datetime | None = None
    ready_at: datetime | None = None
    load_seconds: float | None = None
    restarts: int = 0
    in_flight: int = 0
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    memory_bytes: int | None = None
    estimated_bytes: int | None = None
    devices: tuple[str, ...] = ()
    context_length: int | None = None
    is_restarting: bool = False
    shares: str | None = None
    shared_with: tuple[str, ...] = ()

    def to_json(self, *, with_url: bool = False) -> dict[str, Any]:
        """A JSON-ready form; times as ISO 8601, the internal URL only where asked for."""
        shown: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, StrEnum):
                value = value.value
            shown[name] = value
        if not with_url:
            del shown["url"]
        return shown


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a start would do, without doing it.

    `argv` is the exact command line, with the port (taken at launch) and secrets not shown; `env`
    what the engine gets on top of the server's own cleaned environment. `findings` is all that is known
    beforehand; an error among them would refuse the start. `chosen` are the options that were left open,
    each with name, value and reason. `would_stop` names the models that would leave to make room,
    `evictions` says why of each. `fit` are the devices with what the start needs of them, `fits` whether it
    can ever fit (both None where the need is not known). `disk` says what is still to be downloaded, None
    where everything is here. `expected_load_s`: by earlier loads here, None where none tells. `devices` are
    those that the engine would be given; none: all.
    """

    model_name: str
    engine: str
    runtime: str
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] | None = None
    spec_digest: str | None = None
    findings: tuple[Finding, ...] = ()
    chosen: tuple[Mapping[str, Any], ...] = ()
    would_stop: tuple[str, ...] = ()
    evictions: tuple[Mapping[str, Any], ...] = ()
    fits: bool | None = None
    fit: tuple[Mapping[str, Any], ...] | None = None
    devices: tuple[str, ...] = ()
    expected_load_s: float | None = None
    disk: Mapping[str, Any] | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        """What would refuse the start, each a sentence with what to do."""
        return tuple(found.sentence for found in self.findings if found.is_error)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything else that was found, each a sentence."""
        return tuple(found.message for found in self.findings if not found.is_error)

    def has(self, code: str) -> bool:
        """Was this found?"""
        return any(found.code == code for found in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, with the errors and warnings as plain texts beside the findings."""
        return {
            **asdict(self),
            "findings": [found.to_json() for found in self.findings],
            "errors": list(self.errors),
            "warnings": list(self.warnings),
            "can_start": not self.errors,
        }
