"""What every runtime can do: a few verbs and plain data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ostler.core.errors import Busy, EngineError
from ostler.core.launch import Handle, LaunchSpec


class LaunchFailed(EngineError):
    """The runtime could not create the engine: no such program, no permission, no memory."""


class RuntimeAway(Busy):
    """What carries the engines does not answer now, so nothing is known of them."""


class StopFailed(EngineError):
    """The engine is still there although it was told to end and then killed."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is true of an instance now.

    `gone`: there is no trace of it, and nobody knows how it ended. `exit_code` is negative for a
    signal (-9: killed) and None where it cannot be known, for example for a process that ended
    while nobody of ours was its parent. `port_taken`: its port belongs to somebody else, so another
    launch may succeed where this one did not. `memory_bytes` is measured (resident, all of its
    processes), None where it cannot be.
    """

    state: Literal["alive", "exited", "gone"]
    exit_code: int | None = None
    oom_killed: bool = False
    pid: int | None = None
    memory_bytes: int | None = None
    port_taken: bool = False

    @property
    def is_alive(self) -> bool:
        """True while it runs."""
        return self.state == "alive"


@dataclass(frozen=True, slots=True)
class Discovered:
    """An instance that the runtime itself remembers, alive or ended."""

    handle: Handle
    model_id: int
    instance_id: int
    spec_digest: str


@dataclass(frozen=True, slots=True)
class RuntimeCheck:
    """Whether this host can carry this runtime, and if not, why; `facts` are for `ostler doctor`."""

    ok: bool
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


Tell = Callable[[str], Awaitable[None]]
"""Hears how something goes on, in words for people."""


class Runtime(Protocol):
    """A place where engines run.

    Where it stands on a daemon of its own, that may go away and come back. Then nothing is known, which
    is not the same as gone: `inspect`, `stop`, `discover`, `provide` and `launch` raise RuntimeAway,
    `wait_exit` waits on, and what a stop could not finish is finished by `tidy` later.
    """

    @property
    def name(self) -> str:
        """`process`, `docker` or `kserve`."""

    @property
    def trouble(self) -> str | None:
        """Why it does not answer now, in one sentence with the time since when; None while all is well."""

    async def lacks(self, spec: LaunchSpec) -> str | None:
        """What `provide` would fetch, in one sentence; None where all is here.

        Raises LaunchFailed where it could not be fetched.
        """

    async def provide(self, spec: LaunchSpec, tell: Tell) -> None:
        """Fetch what a launch needs and is not here, a container image for example; may take long.

        `tell` hears how it goes on, in words. May be cancelled at any moment. Raises LaunchFailed.
        """

    async def launch(self, spec: LaunchSpec, *, instance_id: int, secrets: Mapping[str, str]) -> Handle:
        """Create it and return at once, long before it is ready.

        `secrets` are values for `spec.secret_env`; they are never stored. After a crash of ours
        anywhere inside, `discover` finds what was created. Raises LaunchFailed.
        """

    async def inspect(self, handle: Handle) -> Observed:
        """What is true now. Absent is an answer, not an error."""

    async def wait_exit(self, handle: Handle) -> Observed:
        """Return as soon as it is not alive any more; at once if it is not."""

    async def stop(self, handle: Handle, *, grace_s: float) -> None:
        """Ask it to end, kill it (with all of its processes) after `grace_s`, return when it is gone.

        Already gone is success; leftovers of it are swept. Afterwards `discover` does not name it
        any more, its log stays for a while. Raises StopFailed when it will not die.
        """

    def logs(self, handle: Handle, *, tail_lines: int | None, follow: bool) -> AsyncIterator[str]:
        """Lines without their ends, oldest first; the last `tail_lines` (None: all that are kept).

        With `follow`, goes on until the instance has ended.
        """

    async def discover(self) -> list[Discovered]:
        """Every instance that this runtime remembers, for adoption after a restart of the server."""

    async def check(self) -> RuntimeCheck:
        """Whether this host can do it."""

    async def tidy(self) -> None:
        """Housekeeping, called every few seconds: rotate logs, reap, forget what is old."""

    async def close(self) -> None:
        """End our connections, if there are any; the engines go on."""
