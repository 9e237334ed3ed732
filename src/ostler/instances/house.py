"""What every keeper works with, handed to each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ostler.core.clock import Clock
from ostler.core.errors import OstlerError
from ostler.core.launch import Handle
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings
from ostler.engines.base import Engine
from ostler.instances.experience import Experience
from ostler.instances.health import HealthProbe
from ostler.instances.leases import Routes
from ostler.instances.memory import Memory
from ostler.instances.preparing import Preparer
from ostler.instances.scheduler import Scheduler
from ostler.instances.store import InstanceStore, Record
from ostler.models.service import Models
from ostler.runtimes.base import Runtime

if TYPE_CHECKING:
    from ostler.instances.sharing import Sharer


@dataclass(frozen=True, slots=True)
class House:
    """The keepers' common tools. `settings` gives the settings that hold now.

    `owners` are those who run a launch that others may share, or are about to, by its `share_key`.
    `gpus_are_chosen`: the server's own environment limits the GPUs that engines see.
    """

    store: InstanceStore
    clock: Clock
    settings: Callable[[], Settings]
    models: Models
    preparer: Preparer
    probe: HealthProbe
    routes: Routes
    scheduler: Scheduler
    memory: Memory
    experience: Experience
    secret: ServerSecret
    gpus_are_chosen: bool = False
    owners: dict[str, Sharer] = field(default_factory=dict)

    def engine_of(self, record: Record) -> Engine:
        """The engine of a launch. Raises UnknownEngine."""
        return self.preparer.engine(record.spec.engine)

    def trouble_of(self, record: Record) -> str | None:
        """Why the runtime of a launch does not answer now; None while all is well."""
        try:
            return self.preparer.runtime(record.runtime).trouble
        except OstlerError as error:
            return error.message

    def runtime_of(self, record: Record) -> tuple[Runtime, Handle]:
        """The runtime and the handle of a launch that has one. Raises UnknownRuntime."""
        if record.handle is None:
            raise RuntimeError(f"instance {record.id} has no handle yet")
        return self.preparer.runtime(record.runtime), record.handle
