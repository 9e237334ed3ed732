"""The use cases of running engines (signatures first; the rest follows)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.principals import Principal
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings
from ostler.instances.leases import Lease
from ostler.instances.views import DryRun, InstanceView
from ostler.runtimes.base import Runtime


class SettingsHolder(Protocol):
    """Settings that may change while the server runs."""

    @property
    def current(self) -> Settings:
        """The settings that hold now."""


class Instances:
    """Every engine of this server: ask for outcomes, the keepers sort out the rest."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        settings: SettingsHolder,
        models: Any,
        engines: Any,
        runtimes: Mapping[str, Runtime],
        secret: ServerSecret,
        node: str,
    ) -> None:
        raise NotImplementedError

    async def start_service(self) -> None:
        """Adopt what is alive, mark what died, start what should run."""
        raise NotImplementedError

    async def close(self, *, stop_engines: bool = False) -> None:
        """End looking after them; the engines go on unless told otherwise."""
        raise NotImplementedError

    async def start(
        self,
        name: str | int,
        principal: Principal,
        *,
        wait: bool = True,
        overrides: Mapping[str, Any] | None = None,
    ) -> InstanceView:
        """Make it run, and keep it running. Raises StartFailed, StartCancelled, NoRoom, ModelFileGone."""
        raise NotImplementedError

    async def stop(self, name: str | int, principal: Principal, *, now: bool = False) -> InstanceView:
        """Stop it (drained, unless `now`); returns when it is gone."""
        raise NotImplementedError

    async def restart(self, name: str | int, principal: Principal) -> InstanceView:
        """Stop it and start it anew."""
        raise NotImplementedError

    async def stop_all(self, principal: Principal, *, now: bool = False) -> list[InstanceView]:
        """Stop every engine."""
        raise NotImplementedError

    async def apply(self, name: str | int, principal: Principal) -> bool:
        """Restart it if its launch spec changed; True when it did."""
        raise NotImplementedError

    def views(self) -> list[InstanceView]:
        """Every model that is not stopped, by name."""
        raise NotImplementedError

    def view(self, model_id: int) -> InstanceView:
        """One model's instance."""
        raise NotImplementedError

    def logs(self, name: str | int, *, tail: int | None = 100, follow: bool = False) -> AsyncIterator[str]:
        """The engine's log lines."""
        raise NotImplementedError

    async def dry_run(self, name: str | int, overrides: Mapping[str, Any] | None = None) -> DryRun:
        """What a start would do."""
        raise NotImplementedError

    def try_lease(self, model_id: int) -> Lease | None:
        """A lease if the model runs and takes requests; never waits."""
        raise NotImplementedError

    async def lease(self, model_id: int, *, principal: Principal, timeout_s: float) -> Lease:
        """A lease, starting the model if its policy allows. Raises Busy, StartFailed, NotOnDemand."""
        raise NotImplementedError
