"""Which server a command talks to, and starting one in the background when there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ostler.cli.client import Client, ServerUnreachable
from ostler.cli.failures import USAGE, CommandFailed
from ostler.cli.output import note

DEFAULT_URL = "http://127.0.0.1:11500"
START_TIMEOUT_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What a running server writes into `server.json` of its data folder."""

    pid: int
    url: str
    version: str


@dataclass(frozen=True, slots=True)
class Server:
    """What the person said about the server: `--url`, `--key`, `--no-start`. Commands ask it for a client."""

    url: str | None = None
    key: str | None = None
    no_start: bool = False

    def client(self, *, start: bool = True) -> Client:
        """A client of the server that is meant; `start` starts one in the background if need be.

        Order: `--url` or OSTLER_URL, the running server of the data folder, then the default address
        (unless OSTLER_DATA_DIR names a folder: another folder's server is not meant then).
        Raises ServerUnreachable where nothing answers and none may be started.
        """
        key = self.key or os.environ.get("OSTLER_API_KEY") or None
        named = self.url or os.environ.get("OSTLER_URL")
        if named:
            client = Client(normal_url(named), key)
            _require_answer(client)
            return client
        if running := find_running(data_dir()):
            return Client(running.url, key)
        client = Client(DEFAULT_URL, key)
        try:
            if os.environ.get("OSTLER_DATA_DIR"):
                raise ServerUnreachable(
                    f"no Ostler server runs on {data_dir()}",
                    hint="Start one with: ostler serve",
                    code="server_unreachable",
                )
            _require_answer(client)
        except ServerUnreachable:
            if not start or self.no_start or os.environ.get("OSTLER_NO_START"):
                raise
            started = start_in_background([], data_dir())
            note(
                f"Started the Ostler server at {started.url} in the background "
                "(it stays; end it with: ostler serve --stop)"
            )
            return Client(started.url, key)
        return client


def normal_url(text: str) -> str:
    """`host:port`, `host` or a URL as a base URL. Raises CommandFailed."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandFailed(
            f"{text!r} is not the address of a server", hint=f"For example: {DEFAULT_URL}", exit_code=USAGE
        )
    if port is None and "://" not in text:
        url = f"{url.rstrip('/')}:11500"
    return url.rstrip("/")


def data_dir() -> Path:
    """Ostler's data folder, by the same rules as the settings but without loading them (speed)."""
    if named := os.environ.get("OSTLER_DATA_DIR"):
        return Path(named).expanduser().absolute()
    import platformdirs

    config = os.environ.get("OSTLER_CONFIG") or Path(platformdirs.user_config_dir("ostler")) / "config.toml"
    try:
        configured = tomllib.loads(Path(config).read_text()).get("data_dir")
    except (OSError, ValueError):
        configured = None
    if isinstance(configured, str):
        return Path(configured).expanduser().absolute()
    return Path(platformdirs.user_data_dir("ostler"))


def find_running(folder: Path) -> RunningServer | None:
    """The server that runs on this data folder, if its process is alive."""
    try:
        written = json.loads((folder / "server.json").read_text())
        found = RunningServer(int(written["pid"]), str(written["url"]), str(written.get("version", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if is_alive(found.pid) else None


def is_alive(pid: int) -> bool:
    """True when a process has this id and is not merely waiting to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def start_in_background(flags: Sequence[str], folder: Path) -> RunningServer:
    """Start `ostler serve` in a session of its own and wait until it is ready.

    Its output goes to `logs/server.log` of the data folder. Where another server took the folder at
    the same moment, that one is waited for. Raises CommandFailed with the last lines of the log.
    """
    log_path = folder / "logs" / "server.log"
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("ab")
    except OSError as error:
        raise CommandFailed(
            f"the data folder {folder} cannot be written ({error.strerror})",
            hint="Name another one with OSTLER_DATA_DIR, or see: ostler doctor",
        ) from error
    with log:
        child = subprocess.Popen(
            [sys.executable, "-m", "ostler.cli", "serve", *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return wait_until_ready(child, folder, log_path)


def wait_until_ready(child: subprocess.Popen[Any], folder: Path, log_path: Path) -> RunningServer:
    """Wait for the server of this data folder to say ready. Raises CommandFailed when it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if running := find_running(folder):
            if _is_ready(running):
                return running
        elif child.poll() is not None and not _another_starts(child, folder):
            break
        time.sleep(POLL_S)
    tail = _tail(log_path)
    raise CommandFailed(
        "the server did not start" + (f":\n{tail}" if tail else ""),
        hint=f"The whole log is {log_path}; look at: ostler doctor",
    )


def _another_starts(child: subprocess.Popen[Any], folder: Path) -> bool:
    """True when the child gave way to a server that took the folder first and does not listen yet."""
    from ostler.core.server_lock import lock_holder

    holder = lock_holder(folder)
    return holder not in (None, child.pid) and is_alive(holder)


def _is_ready(running: RunningServer) -> bool:
    try:
        Client(running.url).request("GET", "/ready", timeout_s=5.0)
    except CommandFailed:
        return False
    return True


def _require_answer(client: Client) -> None:
    client.request("GET", "/health", timeout_s=5.0)


def _tail(path: Path, lines: int = 5) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 4096))
            return "\n".join(log.read().decode("utf-8", "replace").strip().splitlines()[-lines:])
    except OSError:
        return ""
