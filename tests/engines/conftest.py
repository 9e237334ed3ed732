"""A built-in engine on the demo model, and a way to start more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY = "a-key-for-tests"
START_LIMIT_S = 60.0


@dataclass
class Running:
    """A started engine: its process, its address, what it logged until it was ready or ended."""

    process: subprocess.Popen[str]
    url: str | None
    log: list[str]

    def call(self, path: str, body: object = None, *, key: str = KEY) -> tuple[int, str]:
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, path: str, body: object = None) -> Any:
        status, text = self.call(path, body)
        assert status == 200, text
        return json.loads(text)


StartEngine = Callable[..., Running]


def start(*flags: str, model: Path, env: dict[str, str] | None = None) -> Running:
    """Start the built-in engine and wait until it says that it serves, or ends."""
    command = [sys.executable, "-m", "ostler.engines.llama_server", "--port", "0", "--model", str(model)]
    process = subprocess.Popen(
        [*command, "--alias", "demo", *flags],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LLAMA_API_KEY": KEY, **(env or {})},
    )
    killer = threading.Timer(START_LIMIT_S, process.kill)
    killer.start()
    log: list[str] = []
    assert process.stderr is not None
    try:
        for line in process.stderr:
            log.append(line.rstrip("\n"))
            if "serving on" in line:
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return Running(process, line.split()[-1], log)
        process.wait()
        return Running(process, None, log)
    finally:
        killer.cancel()


def end(running: Running) -> None:
    if running.process.poll() is None:
        running.process.kill()
    running.process.wait(timeout=30)


@pytest.fixture
def start_engine(demo_model: Path) -> Iterator[StartEngine]:
    started: list[Running] = []

    def start_one(*flags: str, model: Path = demo_model, env: dict[str, str] | None = None) -> Running:
        started.append(start(*flags, model=model, env=env))
        return started[-1]

    yield start_one
    for running in started:
        end(running)


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[Running]:
    """One engine for all tests that only ask."""
    running = start("--metrics", "--parallel", "2", "--ctx-size", "1024", model=demo_model)
    assert running.url, running.log
    yield running
    end(running)
