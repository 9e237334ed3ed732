"""What every engine must offer, and the plain values that pass between it and the rooms above."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ostler.core.errors import EngineError, InvalidField, NotFound
from ostler.core.launch import LaunchSpec
from ostler.engines.fit_memory import EngineMemory
from ostler.engines.listed_devices import ListedDevice
from ostler.engines.options import OptionTable
from ostler.engines.start_summary import StartSummary

if TYPE_CHECKING:
    from ostler.engines.diagnosis import Rules


class UnknownEngine(NotFound):
    """There is no engine of that name, or none that reads that format."""


class UnknownFlag(InvalidField):
    """An extra argument is a flag that the executable does not know."""


class NoExecutable(EngineError):
    """The engine's program was not found or cannot be run."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Everything an engine needs to say what will run; paths are those of the host.

    `options` are checked again; `command_override` is a model's own command line of the
    executable ("/opt/llama.cpp/llama-server"); `devices` are device ids ("cuda:0"), empty for all.
    `runtime_options` are the model's wishes for its container, the image among them.
    """

    model_id: int
    model_name: str
    model_path: Path
    mmproj_path: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    runtime: str = "process"
    command_override: str | None = None
    devices: tuple[str, ...] = ()
    runtime_options: Mapping[str, Any] = field(default_factory=dict)


class Health(StrEnum):
    """What a health answer means."""

    LOADING = "loading"
    READY = "ready"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """An answer to a health probe. `status` is None where no connection came about."""

    status: int | None
    body: str = ""


@dataclass(frozen=True, slots=True)
class Executable:
    """The program that will run. `source` is "model", "setting", "path" or "built-in".

    `version` is what the program says of itself; None where it does not say.
    """

    command: tuple[str, ...]
    source: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an executable can do, by what it says of itself.

    `flags` is None where that could not be read; `warning` then says why. `sees_gpus` is None where
    it does not say whether it could use one.
    """

    flags: frozenset[str] | None
    version: str | None = None
    warning: str | None = None
    sees_gpus: bool | None = None


Cause = Literal["model", "memory", "arguments", "network", "gpus", "system", "engine"]
"""What a diagnosis points at."""


Severity = Literal["error", "warning", "info"]
"""An error ended the engine; a warning spoils its answers; an info is worth knowing."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an engine ended, in words that a person can act on. `line` is the log line that told.

    `hint` is what to do first, `fixes` is everything that may help, the hint first.
    """

    title: str
    reason: str
    hint: str
    line: str | None = None
    cause: Cause = "engine"
    severity: Severity = "error"
    fixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """The hint is one of the fixes."""
        if self.hint not in self.fixes:
            object.__setattr__(self, "fixes", (self.hint, *self.fixes))


class Engine(ABC):
    """One inference program. Engines hold no state of instances and start nothing.

    `as_of` is the version of the program whose options the table holds, `programs` are the names (of a
    file, or of a Python module) by which a command line names it. `options_vary`: releases differ so
    much in their flags that options, too, are checked against the program before each start. `serves` is
    what it does with files of its formats, to be read after the title. `image` is that of its containers
    where a model names none.
    """

    name: ClassVar[str]
    as_of: ClassVar[str]
    programs: ClassVar[frozenset[str]]
    title: ClassVar[str]
    formats: ClassVar[frozenset[str]]
    serves: ClassVar[str]
    options: ClassVar[OptionTable]
    options_vary: ClassVar[bool] = False
    secret_env: ClassVar[tuple[str, ...]]
    known_ends: ClassVar[Rules]
    image: str | None = None
    health_path: ClassVar[str]
    models_path: ClassVar[str] = "/v1/models"
    context_keys: ClassVar[tuple[str, ...]] = ()
    """Where an entry of its model list says how many tokens one request may have, key by key."""
    metrics_path: ClassVar[str | None] = None
    spreads_over_gpus: ClassVar[bool] = False
    """Left alone, it shares a model out over every GPU that it sees."""
    metric_names: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    slots_path: ClassVar[str | None] = None
    no_memory: ClassVar[frozenset[str]] = frozenset()
    """Options that surely do not change how much memory the engine takes."""

    @abstractmethod
    def launch_spec(self, request: LaunchRequest) -> LaunchSpec:
        """What exactly will run. Pure apart from looking for the executable.

        Raises UnknownOption, BadOptionValue, OwnedOption, NoExecutable.
        """

    @abstractmethod
    def read_health(self, answer: HealthAnswer, *, was_ready: bool = False) -> Health:
        """What an answer to a probe of `health_path` means.

        `was_ready` says that the engine answered before: no connection then means dead.
        """

    async def devices(
        self, request: LaunchRequest, *, fresh: bool = False
    ) -> tuple[ListedDevice, ...] | None:
        """The GPUs that the program names, none for one that uses the CPU; None where it does not say.

        `fresh` asks again how much is free on them. Raises NoExecutable.
        """
        return None

    def read_context(self, body: str) -> int | None:
        """The tokens that one request may have, from the engine's model list; None where it does not say."""
        try:
            found = json.loads(body)["data"][0]
            for key in self.context_keys:
                found = found[key]
        except (ValueError, RecursionError, LookupError, TypeError):
            return None
        return found if type(found) is int and found > 0 else None

    async def sees_gpus(self, request: LaunchRequest) -> bool | None:
        """Whether the program would use this host's GPUs; None where it does not say. Raises NoExecutable."""
        found = await self.devices(request)
        return None if found is None else bool(found)

    async def memory(self, request: LaunchRequest, *, ask: bool = True) -> EngineMemory | None:
        """What the program itself says that it would allocate; None where it cannot be asked.

        Without `ask` only an answer that it gave before. Raises what `launch_spec` raises.
        """
        return None

    async def knows(self, request: LaunchRequest, option: str) -> bool | None:
        """Whether the program takes this option; None where it does not say. Raises NoExecutable."""
        return True

    @abstractmethod
    async def executable(self, request: LaunchRequest) -> Executable:
        """The program that `launch_spec` would run, with its version. Raises NoExecutable."""

    @abstractmethod
    async def capabilities(self, command: Sequence[str]) -> Capabilities:
        """What that executable can do; remembered until the file changes. Never raises."""

    @abstractmethod
    async def check(self, request: LaunchRequest) -> list[str]:
        """Check a request against the executable itself; returns warnings.

        Raises UnknownFlag (with near names), and what `launch_spec` raises.
        """

    def shared_form(self, spec: LaunchSpec) -> LaunchSpec | None:
        """What of a launch is the same for all models that one engine can serve; None where it serves one.

        Two launches with equal forms differ in nothing but the model's name.
        """
        return None

    def served_name(self, spec: LaunchSpec) -> str | None:
        """What its engine calls its model in every answer; None where that is what was asked for."""
        return None

    def diagnose(
        self, log_tail: Sequence[str], exit_code: int | None = None, *, oom_killed: bool = False
    ) -> Diagnosis | None:
        """Explain an engine's end by its last log lines; None where nothing is known."""
        return self.known_ends.diagnose(log_tail, exit_code, oom_killed=oom_killed)

    def notes(self, log_tail: Sequence[str]) -> list[Diagnosis]:
        """What the log of a running engine says that a person may wonder about; no reason to worry."""
        return self.known_ends.notes_on(log_tail)

    @abstractmethod
    def start_summary(self, log: Sequence[str]) -> StartSummary | None:
        """What the log tells of a start; None before the weights are loaded."""

    def check_extra_args(self, extra_args: Sequence[str]) -> None:
        """Refuse arguments that Ostler decides. Raises OwnedOption."""
        self.options.check_extra_args(extra_args)

    def check_env(self, env: Mapping[str, str]) -> None:
        """Refuse variables that Ostler decides. Raises OwnedOption."""
        self.options.check_env(env)
