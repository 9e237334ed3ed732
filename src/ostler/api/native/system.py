"""The server itself: devices, engines, and what an administrator wants to know first."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Annotated, Any

import psutil
from fastapi import Path, Query
from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import (
    Body,
    Listing,
    Out,
    PageOut,
    hide_args,
    hide_env,
    hide_password,
    page_out,
    shape_of,
)
from ostler.core.principals import Role
from ostler.engines.rows import Option, ParsedCommand
from ostler.fit.devices import Device
from ostler.usage.host_series import HostReading

routes = router("system")

EngineName = Annotated[str, Path(max_length=50)]


class EngineOut(Out):
    """An inference program that Ostler can start."""

    name: str
    title: str
    formats: list[str]
    options: int = Field(description="How many options it has; see /engines/{name}/options.")


@shape_of(Option, without=("joiner", "quoted", "spread", "values", "stands_for"))
class OptionOut(Out):
    """One option of an engine, as its table has it."""


class CommandIn(Body):
    """A command line of the engine, as one types it."""

    command: str = Field(max_length=100_000, examples=["llama-server -m model.gguf -c 8192 -ngl 99"])


class SystemOut(Out):
    """The server: version, machine, and what it holds. Paths are shown to administrators only."""

    version: str
    node: str
    python: str
    platform: str
    pid: int
    cpu_count: int
    memory_bytes: int
    rss_bytes: int
    models: int
    running: int
    data_dir: str | None = None
    database: str | None = None
    config_file: str | None = None


@shape_of(Device)
class DeviceOut(Out):
    """A device, with its account in the ledger.

    `total_bytes` is `reserve_bytes` (kept back) + `foreign_bytes` (other programs) + `measured_bytes`
    (held by models) + `promised_bytes` (what models need beyond that) + `available_bytes`. A device with a
    `pool` has no memory of its own: `total_bytes` is what it may take of that device's, on whose account all
    of it stands as well.
    """

    reserve_bytes: int
    foreign_bytes: int
    measured_bytes: int
    promised_bytes: int
    available_bytes: int


@routes.get("/devices", response_model=PageOut[DeviceOut], **needs(Role.USER))
async def list_devices(rooms: Rooms, who: Who, page: Listing) -> Any:
    """GPUs and the host, with their memory now and who holds it."""
    found = await rooms.instances.devices()
    return page_out(page.cut([asdict(device) | account.to_json() for device, account in found]))


@shape_of(HostReading)
class HostOut(Out):
    """The host at one moment, or the mean over one step; rates are in bytes per second."""


class HostSeriesOut(Out):
    """The host's last minutes, oldest first."""

    step_s: int
    points: list[HostOut]


@routes.get("/host/series", response_model=HostSeriesOut, **needs(Role.MANAGER))
async def show_host_series(
    rooms: Rooms,
    who: Who,
    minutes: Annotated[int, Query(ge=1, le=60)] = 15,
    step_s: Annotated[int, Query(ge=5, le=600)] = 15,
) -> Any:
    """Processors, memory, disks, network and GPUs of the last minutes, as sampled here every 5 seconds."""
    await rooms.host.latest()
    return {
        "step_s": step_s,
        "points": rooms.host.series(timedelta(minutes=minutes), timedelta(seconds=step_s)),
    }


@routes.get("/engines", response_model=PageOut[EngineOut], **needs(Role.USER))
async def list_engines(rooms: Rooms, who: Who, page: Listing) -> Any:
    """The engines that Ostler knows."""
    known = [
        {
            "name": engine.name,
            "title": engine.title,
            "formats": sorted(engine.formats),
            "options": len(engine.options),
        }
        for engine in rooms.engines
    ]
    return page_out(page.cut(known))


@routes.get("/engines/{name}/options", response_model=PageOut[OptionOut], **needs(Role.USER))
async def list_options(rooms: Rooms, who: Who, page: Listing, name: EngineName) -> Any:
    """Every option of an engine, with its bounds and what it does."""
    found = [
        option
        for option in rooms.engines.get(name).options
        if not page.search or page.search.lower() in f"{option.name} {option.help}".lower()
    ]
    return page_out(page.cut(found))


@routes.post("/engines/{name}/parse", response_model=ParsedCommand, **needs(Role.USER))
async def parse_command(rooms: Rooms, who: Who, name: EngineName, body: CommandIn) -> Any:
    """Take a command line apart into options; nothing is stored."""
    parsed = rooms.engines.get(name).options.parse_command(body.command)
    return replace(
        parsed,
        extra_args=tuple(hide_args(parsed.extra_args)),
        env=hide_env(parsed.env),
        ignored=tuple(hide_args(parsed.ignored)),
    )


@routes.get("/system", response_model=SystemOut, **needs(Role.USER))
async def show_system(rooms: Rooms, who: Who) -> Any:
    """Version, machine, and how much is there."""
    settings = rooms.settings.loaded
    answer = {
        "version": rooms.version,
        "node": rooms.node,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "pid": os.getpid(),
        "cpu_count": psutil.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "rss_bytes": psutil.Process().memory_info().rss,
        "models": len(rooms.models.all()),
        "running": sum(view.state.is_active for view in rooms.instances.views()),
    }
    if who.role >= Role.ADMIN:
        answer |= {
            "data_dir": str(settings.values.data_dir),
            "database": hide_password(settings.values.effective_database_url),
            "config_file": None if settings.config_file is None else str(settings.config_file),
        }
    return answer
