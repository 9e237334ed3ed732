"""`ostler serve` as a process of its own, that a test may kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

START_S = 20.0


class ServerProcess:
    """A server on `data_dir`; `start`, then ask it, then `end` or `kill` it."""

    def __init__(self, data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._arguments = arguments
        self._environment = {
            **os.environ,
            "OSTLER_OFFLINE": "1",
            "OSTLER_HUB_CACHE_DIR": str(data_dir / "hub"),
            **(environment or {}),
        }
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.said: list[str] = []

    def start(self) -> ServerProcess:
        """Start it and wait until it answers; what it printed until then is in `said`."""
        command = [
            sys.executable,
            "-m",
            "ostler.cli",
            "serve",
            "--port",
            "0",
            "--data-dir",
            str(self.data_dir),
        ]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self._arguments],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            line = self.process.stdout.readline()
            if not line:
                break
            self.said.append(line.rstrip("\n"))
            if "http://" in line:
                self.url = "http://" + line.split("http://", 1)[1].split()[0].rstrip("/")
                return self
        raise AssertionError(f"the server did not start: {self.said} {self.log.read_text()}")

    def refused(self) -> tuple[int, str]:
        """Start one that must not come up: its exit code and what it said on stderr."""
        command = [sys.executable, "-m", "ostler.cli", "serve", "--data-dir", str(self.data_dir)]
        ended = subprocess.run(
            [*command, *self._arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        return ended.returncode, ended.stderr

    def ask(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Any:
        """The JSON of an answer. Raises urllib.error.HTTPError for an error status."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def status(self, path: str, body: Any = None, **headers: str) -> int:
        """The status of an answer, an error's too."""
        try:
            self.ask(path, body, **headers)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    def engines(self) -> list[psutil.Process]:
        """The engine processes that serve models of this data directory."""
        notes = (self.data_dir / "engines").rglob("*.json")
        pids = {json.loads(note.read_text()).get("pid") for note in notes}
        processes = [psutil.Process(pid) for pid in pids if pid and psutil.pid_exists(pid)]
        return [process for process in processes if process.status() != psutil.STATUS_ZOMBIE]

    def kill(self) -> None:
        """`kill -9`: no goodbye."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._close()

    def end(self) -> int:
        """SIGTERM and wait; the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(30)
        self._close()
        return code

    def end_everything(self) -> None:
        """End the server, if it still runs, and its engines."""
        engines = self.engines() if self.data_dir.exists() else []
        if self.process is not None and self.process.poll() is None:
            self.end()
        for engine in engines:
            if engine.is_running():
                engine.kill()
                engine.wait(10)

    def _close(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
