"""What `ostler doctor` looks at. Each check answers with what it found and what to try."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ostler.cli import human
from ostler.cli.client import Json, ServerUnreachable
from ostler.cli.connection import Server, find_running
from ostler.cli.failures import CommandFailed
from ostler.core.disk import free_bytes
from ostler.core.errors import OstlerError
from ostler.core.settings import Settings
from ostler.core.settings_sources import load_settings

if TYPE_CHECKING:
    from ostler.runtimes.base import RuntimeCheck

HUB_TIMEOUT_S = 5.0
LOW_DISK_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `failed` means that Ostler cannot do its work; `warning` that a part is missing."""

    name: str
    level: Literal["ok", "warning", "failed"]
    found: str
    hint: str | None = None

    def to_json(self) -> Json:
        """A JSON-ready form."""
        return asdict(self)


def check_all(server: Server) -> list[Check]:
    """Every check in the order in which a person would repair things."""
    try:
        loaded = load_settings()
    except OstlerError as error:
        return [_python(), Check("settings", "failed", error.message, error.hint)]
    settings = loaded.values
    source = f"configuration file {loaded.config_file}" if loaded.config_file else "no configuration file"
    checks = [_python(), Check("settings", "ok", source)]
    checks += [check(settings) for check in _CHECKS]
    checks += _devices(settings, server)
    checks.append(_server(server))
    checks.append(_hub(settings))
    return checks


def _python() -> Check:
    return Check("python", "ok", f"Python {sys.version.split()[0]} at {sys.executable}")


def _data_dir(settings: Settings) -> Check:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        hint = "Choose another with OSTLER_DATA_DIR, or change its permissions."
        return Check("data folder", "failed", f"{folder} cannot be written ({error.strerror})", hint)
    return Check("data folder", "ok", str(folder))


def _disk(settings: Settings) -> Check:
    free = free_bytes(settings.hub_cache_dir)
    found = f"{human.size(free)} free for downloads at {settings.hub_cache_dir}"
    if free < LOW_DISK_BYTES:
        return Check("disk", "warning", found, "Most models need several GB: see ostler list --files")
    return Check("disk", "ok", found)


def _database(settings: Settings) -> Check:
    file = settings.data_dir / "ostler.db"
    if settings.database_url is None and not file.exists():
        return Check("database", "ok", f"{file} (made at the first start of the server)")
    try:
        problems = asyncio.run(_look_into_database(settings.effective_database_url))
    except Exception as error:  # noqa: BLE001 - every driver has errors of its own, and all are the finding
        problems = [str(error).splitlines()[0]]
    if problems:
        hint = "Stop the server, keep a copy of the file, and put a backup in its place."
        return Check("database", "failed", "; ".join(problems[:3]), hint)
    return Check("database", "ok", str(file) if settings.database_url is None else "answers")


async def _look_into_database(url: str) -> list[str]:
    from ostler.core.database import Database

    database = Database(url)
    try:
        return await database.check()
    finally:
        await database.close()


def _engines(settings: Settings) -> Check:
    return asyncio.run(_find_engines(settings))


async def _find_engines(settings: Settings) -> Check:
    """Every engine with its version. One that is not here is a finding only where it was asked for."""
    from ostler.engines.base import LaunchRequest, NoExecutable
    from ostler.engines.registry import default_engines

    found: list[str] = []
    missing: list[NoExecutable] = []
    for engine in default_engines(settings):
        try:
            executable = await engine.executable(LaunchRequest(0, "doctor", Path("model")))
        except NoExecutable as error:
            found.append(f"{engine.name}: {error.message}")
            missing.append(error)
            continue
        found.append(f"{engine.name} {executable.version or '(version unknown)'} ({executable.source})")
    said = "; ".join(found)
    asked_for = [error for error in missing if not error.facts.get("optional")]
    if asked_for:
        return Check(
            "engines", "failed" if len(missing) == len(found) else "warning", said, asked_for[0].hint
        )
    return Check("engines", "ok", said)


def _port(settings: Settings) -> Check:
    where = f"{settings.host}:{settings.port}"
    running = find_running(settings.data_dir)
    if running is not None:
        return Check("port", "ok", f"{running.url} is used by the running server")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            hint = "Choose another with OSTLER_PORT or: ostler serve --port 0"
            return Check("port", "warning", f"{where} cannot be used ({error.strerror})", hint)
    return Check("port", "ok", f"{where} is free")


def _docker(settings: Settings) -> Check:
    """Models run as processes where there is no Docker, so its absence alone is no fault."""
    checked = asyncio.run(_ask_docker(settings))
    facts = checked.facts
    if checked.ok:
        gpus = "no GPUs for containers" if facts["gpus"] == "none" else f"{facts['gpus']} GPUs for containers"
        manner = ", rootless" if facts["rootless"] else ""
        return Check("docker", "ok", f"{facts['version']} at {facts['docker_host']}{manner}, {gpus}")
    socket_file = Path(facts["docker_host"].removeprefix("unix://"))
    if settings.docker_host is None and not socket_file.exists():
        return Check("docker", "ok", f"none found at {facts['docker_host']}: models run as processes")
    return Check("docker", "warning", checked.reason, facts["hint"])


async def _ask_docker(settings: Settings) -> RuntimeCheck:
    from ostler.app import docker_runtime
    from ostler.core.clock import Clock

    runtime = docker_runtime(settings, "doctor", Clock())
    try:
        return await runtime.check()
    finally:
        await runtime.close()


_CHECKS: tuple[Callable[[Settings], Check], ...] = (_data_dir, _disk, _database, _engines, _docker, _port)


def _devices(settings: Settings, server: Server) -> list[Check]:
    found = _ledger_of(server) or asyncio.run(_ledger_here(settings))
    checks = [Check(device["id"], "ok", _account(device)) for device in found]
    if all(device["kind"] == "cpu" for device in found):
        silent = "neither NVML nor the kernel nor llama.cpp tells of one"
        checks.append(Check("gpu", "ok", f"none found: models run on the CPU ({silent})"))
    return checks


def _ledger_of(server: Server) -> list[Json]:
    """The ledger as a running server keeps it; empty where none answers."""
    try:
        devices: list[Json] = server.client(start=False).get("/devices", timeout_s=5.0)["items"]
    except CommandFailed:
        return []  # what is wrong with the server is a finding of its own
    return devices


async def _ledger_here(settings: Settings) -> list[Json]:
    """The ledger without a server: nothing is held by models that we know of."""
    from ostler.engines.registry import default_engines
    from ostler.fit.devices import Devices
    from ostler.fit.ledger import open_ledger
    from ostler.fit.pretend import pretended

    pretend = pretended(settings.devices) if settings.devices else ()
    devices = await Devices(pretend=pretend, listed=default_engines(settings).listed_devices).list()
    ledger = open_ledger(devices, (), (), settings.reserve_by_device)
    return [ledger.account_of(d).to_json() | asdict(d) for d in devices]


def _account(device: Json) -> str:
    size = human.size
    parts = [
        f"{size(device['available_bytes'])} of {size(device['total_bytes'])} memory free for models",
        f"models hold {size(device['measured_bytes'])}",
        f"promised to them {size(device['promised_bytes'])}",
        f"other programs {size(device['foreign_bytes'])}",
        f"kept back {size(device['reserve_bytes'])}",
    ]
    if device["pool"]:
        parts[0] = f"{parts[0]} (out of that of {device['pool']}: one memory for both)"
    if device["told_by"] == "engine":
        parts.append("sizes are llama.cpp's, which does not say what other programs hold")
    return f"{device['name']}, {', '.join(parts)}"


def _server(server: Server) -> Check:
    try:
        client = server.client(start=False)
    except ServerUnreachable as error:
        if server.url or os.environ.get("OSTLER_URL"):
            return Check("server", "failed", error.message, error.hint)
        return Check("server", "ok", "not running (commands start one when they need it)")
    except CommandFailed as error:
        return Check("server", "failed", error.message, error.hint)
    try:
        client.request("GET", "/ready", timeout_s=5.0)
        told = client.get("/system", timeout_s=5.0)
    except CommandFailed as error:
        return Check("server", "failed", f"{client.url}: {error.message}", error.hint)
    return Check("server", "ok", f"{client.url}, version {told.get('version')}")


def _hub(settings: Settings) -> Check:
    if settings.offline:
        return Check("hub", "ok", "offline mode is on: no call is made")
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(settings.hf_endpoint, method="HEAD"), timeout=HUB_TIMEOUT_S):
            pass
    except HTTPError:
        pass  # any answer at all means that it is reachable
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        hint = "Set HF_ENDPOINT to a mirror, or OSTLER_OFFLINE=1 to work with the files that are here."
        return Check("hub", "warning", f"{settings.hf_endpoint} does not answer ({reason})", hint)
    return Check("hub", "ok", f"{settings.hf_endpoint} answers")
