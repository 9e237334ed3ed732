"""Putting together what the keepers work with: several of these tools ask each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings
from ostler.engines.registry import Engines
from ostler.fit.devices import Devices
from ostler.fit.reading import Shapes
from ostler.instances.experience import Experience
from ostler.instances.footprints import Footprints
from ostler.instances.health import HealthProbe
from ostler.instances.house import House
from ostler.instances.keeper import Keeper
from ostler.instances.leases import Routes
from ostler.instances.memory import Memory
from ostler.instances.preparing import Preparer
from ostler.instances.residence import Residence
from ostler.instances.scheduler import Scheduler
from ostler.instances.store import InstanceStore
from ostler.models.service import Models
from ostler.runtimes.base import Runtime


def furnish(
    database: Database,
    events: EventLog,
    clock: Clock,
    settings: Callable[[], Settings],
    models: Models,
    engines: Engines,
    runtimes: Mapping[str, Runtime],
    secret: ServerSecret,
    node: str,
    devices: Devices,
    shapes: Shapes,
    *,
    keepers: Callable[[], Iterable[Keeper]],
    gpus_are_chosen: bool,
) -> House:
    """The common tools; `keepers` gives all keepers that there are, which are made later with these tools."""
    preparer = Preparer(
        models,
        engines,
        runtimes,
        lambda model, overrides: memory.choice(model, overrides),
        lambda: memory.devices,
    )
    experience = Experience(
        Footprints(database, clock, node),
        models,
        preparer,
        lambda: memory.devices,
        lambda: memory.look(),
        clock.monotonic,
    )
    memory = Memory(
        devices,
        models,
        settings,
        lambda: residence.engines(),
        shapes,
        preparer.sees_gpus,
        preparer.told,
        experience,
    )
    residence = Residence(keepers, memory, settings)
    return House(
        store=InstanceStore(database, events, clock, node),
        clock=clock,
        settings=settings,
        models=models,
        preparer=preparer,
        probe=HealthProbe(),
        routes=Routes(),
        scheduler=Scheduler(residence, clock, settings),
        memory=memory,
        experience=experience,
        secret=secret,
        gpus_are_chosen=gpus_are_chosen,
    )
