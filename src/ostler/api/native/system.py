"""The server itself: devices, engines, and what an administrator wants to know first."""

from __future__ import annotations

import os
import platform
import sys
from typing import Annotated, Any, Literal

import psutil
from fastapi import Path
from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Listing, Out, PageOut, hide_args, hide_env, hide_password, page_out
from ostler.core.principals import Role

routes = router("system")

EngineName = Annotated[str, Path(max_length=50)]


class DeviceOut(Out):
    """A GPU, or the host with its memory."""

    id: str
    name: str
    kind: Literal["cpu", "cuda"]
    total_bytes: int
    free_bytes: int
    driver: str | None = None


class EngineOut(Out):
    """An inference program that Ostler can start."""

    name: str
    title: str
    formats: list[str]
    options: int = Field(description="How many options it has; see /engines/{name}/options.")


class OptionOut(Out):
    """One option of an engine, as its table has it."""

    name: str
    type: str
    flags: list[str] = Field(default_factory=list)
    negative_flags: list[str] = Field(default_factory=list)
    env: list[str] = Field(default_factory=list)
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str] = Field(default_factory=list)
    words: list[str] = Field(default_factory=list)
    unit: str | None = None
    help: str = ""
    group: str | None = None
    aliases: list[str] = Field(default_factory=list)
    since: str | None = None
    until: str | None = None
    needs_restart: bool = True
    repeat: bool = False
    old: bool = False


class CommandIn(Body):
    """A command line of the engine, as one types it."""

    command: str = Field(max_length=100_000, examples=["llama-server -m model.gguf -c 8192 -ngl 99"])


class ParsedOut(Out):
    """What a command line means; `ignored` are flags that Ostler sets itself."""

    options: dict[str, Any]
    extra_args: list[str]
    model: str | None
    hub: str | None
    alias: str | None
    env: dict[str, str]
    ignored: list[str]


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


@routes.get("/devices", response_model=PageOut[DeviceOut], **needs(Role.USER))
async def list_devices(rooms: Rooms, who: Who, page: Listing) -> Any:
    """GPUs and the host, with their memory now."""
    return page_out(page.cut(await rooms.devices.list()))


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


@routes.post("/engines/{name}/parse", response_model=ParsedOut, **needs(Role.USER))
async def parse_command(rooms: Rooms, who: Who, name: EngineName, body: CommandIn) -> Any:
    """Take a command line apart into options; nothing is stored."""
    parsed = rooms.engines.get(name).options.parse_command(body.command)
    return {
        "options": parsed.options,
        "extra_args": hide_args(parsed.extra_args),
        "model": parsed.model,
        "hub": parsed.hub,
        "alias": parsed.alias,
        "env": hide_env(parsed.env),
        "ignored": hide_args(parsed.ignored),
    }


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
