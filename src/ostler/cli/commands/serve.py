"""`ostler serve`: the server, in the foreground or in the background, and its end."""

from __future__ import annotations

import os
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostler.cli.connection import (
    RunningServer,
    data_dir,
    find_running,
    is_alive,
    start_in_background,
)
from ostler.cli.failures import NOT_FOUND, CommandFailed

if TYPE_CHECKING:
    from ostler.core.settings_sources import LoadedSettings

STOP_TIMEOUT_S = 90.0
POLL_S = 0.05


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: a free one [11500].")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data-dir", help="Folder of Ostler's own data.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file (TOML).")] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option("--log-format", help="For people or for machines [text].")
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option("--log-level", help="How much is logged [info].")
    ] = None,
    stop_engines: Annotated[
        bool, typer.Option("--stop-engines-on-exit", help="Stop every engine when the server ends.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the running server; engines stay.")] = False,
) -> None:
    """Run the server. Engines outlive it, and are adopted again by the next one.

    Every setting also has an environment variable: see ostler settings.
    Example: ostler serve --port 11500
    """
    folder = data.expanduser().absolute() if data else data_dir()
    if stop:
        _stop(folder)
        return
    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "data_dir": str(folder) if data else None,
        "log_format": log_format.value if log_format else None,
        "log_level": log_level.value if log_level else None,
        "stop_engines_on_exit": True if stop_engines else None,
    }
    if detach:
        _detach(folder, flags, config)
        return
    from ostler.core.settings_sources import load_settings

    _foreground(load_settings(flags=flags, config=config))


def _foreground(loaded: LoadedSettings) -> None:
    """Serve until SIGINT or SIGTERM; what a person needs to know goes to stdout, log lines to stderr."""
    import uvloop

    from ostler.app import serve as serve_until_told
    from ostler.core.logs import set_up_logging

    set_up_logging(loaded.values.log_level, loaded.values.log_format)

    def on_ready(url: str, first_key: str | None) -> None:
        print(f"Ostler is ready at {url}  (OpenAI API: {url}/v1, end: Ctrl-C)", flush=True)
        if first_key:
            print("The administrator's key, shown only now:", flush=True)
            print(first_key, flush=True)

    uvloop.run(serve_until_told(loaded, on_ready=on_ready))


def _detach(folder: Path, flags: dict[str, Any], config: Path | None) -> None:
    if running := find_running(folder):
        raise CommandFailed(
            f"a server runs on {folder} already: {running.url} (pid {running.pid})",
            hint="End it with: ostler serve --stop",
        )
    arguments = ["--config", str(config)] if config else []
    for name, value in flags.items():
        if value is True:
            arguments.append(f"--{name.replace('_', '-')}")
        elif value is not None:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    started = start_in_background(arguments, folder)
    print(f"The server runs at {started.url} (pid {started.pid}). End it with: ostler serve --stop")


def _stop(folder: Path) -> None:
    running = find_running(folder)
    if running is None or not _is_ours(running):
        raise CommandFailed(
            f"no server runs on {folder}", hint="Start one with: ostler serve", exit_code=NOT_FOUND
        )
    stop_server(running)
    print(f"The server at {running.url} has ended. The next one adopts engines that still run.")


def stop_server(running: RunningServer) -> None:
    """Ask a server to end and wait until it is gone. Raises CommandFailed when it stays."""
    try:
        os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise CommandFailed(
            f"the server (pid {running.pid}) belongs to another user", hint="End it as that user."
        ) from error
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while is_alive(running.pid):
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"the server (pid {running.pid}) did not end within {STOP_TIMEOUT_S:.0f} s",
                hint="Look at its log, logs/server.log in the data folder.",
            )
        time.sleep(POLL_S)


def _is_ours(running: RunningServer) -> bool:
    """False where the process id of a crashed server went to another program."""
    import psutil

    try:
        return any("ostler" in part for part in psutil.Process(running.pid).cmdline())
    except psutil.Error:
        return False
