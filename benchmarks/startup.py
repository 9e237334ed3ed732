"""How long people wait: for `--help`, for the server, for the first token; and what an idle server takes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import psutil

from ostler.app import listen

OSTLER = str(Path(sys.executable).with_name("ostler"))
DEMO = str(resources.files("ostler") / "data" / "ostler-demo-Q8_0.gguf")
CHAT = {
    "model": "demo",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "stream": True,
    "max_tokens": 8,
}


def measure() -> dict[str, Any]:
    """All numbers of this page; seconds and bytes."""
    help_s = [_seconds([OSTLER, "--help"]) for _ in range(7)]
    ready, idle, through = zip(*(_server_round() for _ in range(3)), strict=True)
    alone = [_engine_alone() for _ in range(3)]
    return {
        "help_s": statistics.median(help_s),
        "python_alone_s": statistics.median(_seconds([sys.executable, "-c", "pass"]) for _ in range(7)),
        "server_ready_s": statistics.median(ready),
        "server_idle_bytes": statistics.median(idle),
        "start_to_first_token_s": statistics.median(through),
        "engine_alone_start_to_first_token_s": statistics.median(alone),
        "added_to_first_token_s": statistics.median(through) - statistics.median(alone),
    }


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _server_round() -> tuple[float, float, float]:
    """Seconds until ready, bytes when idle, seconds from the first request to its first token."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            OSTLER,
            "serve",
            "--data-dir",
            folder,
            "--port",
            str(_free_port()),
            "--stop-engines-on-exit",
        ]
        environ = {**os.environ, "OSTLER_OFFLINE": "1", "OSTLER_HUB_CACHE_DIR": f"{folder}/hub"}
        started = time.perf_counter()
        with _process(command, environ) as server:
            url = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
            _wait_for(f"{url}/ready")
            ready_s = time.perf_counter() - started
            _post(f"{url}/ostler/v1/models", {"name": "demo", "source": {"path": DEMO}}).read()
            idle = sum(p.memory_info().rss for p in [psutil.Process(server.pid)])
            asked = time.perf_counter()
            _first_token(url)
            return ready_s, idle, time.perf_counter() - asked


def _engine_alone() -> float:
    """Seconds from the start of the same engine, as Ostler starts it, to its first token."""
    port = _free_port()
    command = [sys.executable, "-m", "ostler.engines.llama_server", "--model", DEMO, "--port", str(port)]
    started = time.perf_counter()
    with _process([*command, "--host", "127.0.0.1", "--metrics", "--alias", "demo"], dict(os.environ)):
        _wait_for(f"http://127.0.0.1:{port}/health")
        _first_token(f"http://127.0.0.1:{port}")
        return time.perf_counter() - started


def _free_port() -> int:
    with listen("127.0.0.1", 0) as free:
        return int(free.getsockname()[1])


@contextmanager
def _process(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str) -> None:
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        with suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url).read()
            return
        time.sleep(0.01)
    raise TimeoutError(url)


def _post(url: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers))


def _first_token(url: str) -> None:
    for line in _post(f"{url}/v1/chat/completions", CHAT):
        if line.startswith(b"data: {") and b'"content":"' in line:
            return
    raise AssertionError("the stream held no token")


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
