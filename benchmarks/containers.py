"""How long the demo model takes from `start` to `running` under llama.cpp: in a container, and as a process.

A Docker Engine of our own with an image of the real llama-server, made by `docker import` as the tests make
it; the process is the same llama-server. Both are started in turn by one Ostler with its default settings.
It needs root, `dockerd` and llama-server (tests/real/install.sh).

Run alone with `python -m benchmarks.containers`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.startup import DEMO
from tests.real.docker_engine import LLAMA_IMAGE, DockerEngine, llama_server, make_images
from tests.serving import ServerProcess

API = "/ostler/v1/models"
CONTAINER, PROCESS = "docker", "process"
ROUNDS = 7


def missing() -> list[str]:
    """What this machine lacks for it."""
    lacks = [program for program in ("dockerd", "docker") if shutil.which(program) is None]
    lacks += [] if llama_server() else ["llama-server"]
    lacks += [] if os.getuid() == 0 else ["root, to start dockerd"]
    return [f"{what}: run tests/real/install.sh" for what in lacks]


def measure() -> dict[str, Any]:
    """Seconds: the medians of several starts, the slowest, and the very first in a container.

    The first makes the network of the containers as well.
    """
    if lacks := missing():
        return {"missing": lacks}
    with tempfile.TemporaryDirectory(prefix="ostler-bench-", dir="/tmp") as folder:
        with _server(Path(folder)) as server:
            first = _start_s(server, CONTAINER)
            _start_s(server, PROCESS)
            times: dict[str, list[float]] = {CONTAINER: [], PROCESS: []}
            for _ in range(ROUNDS):
                for runtime, seen in times.items():
                    seen.append(_start_s(server, runtime))
    container, process = times[CONTAINER], times[PROCESS]
    return {
        "rounds": ROUNDS,
        "container_s": statistics.median(container),
        "container_slowest_s": max(first, *container),
        "container_first_s": first,
        "process_s": statistics.median(process),
        "process_slowest_s": max(process),
        "added_s": statistics.median(container) - statistics.median(process),
    }


@contextmanager
def _server(folder: Path) -> Iterator[ServerProcess]:
    """An Ostler with the demo model twice, once for each runtime."""
    engine = DockerEngine(folder / "docker")
    engine.folder.mkdir()
    settings = {
        "OSTLER_DOCKER_HOST": engine.host,
        "OSTLER_LLAMACPP_IMAGE": LLAMA_IMAGE,
        "OSTLER_LLAMA_SERVER_COMMAND": str(llama_server()),
    }
    server = ServerProcess(folder / "data", environment=settings)
    try:
        engine.start()
        make_images(engine)
        server.start()
        for runtime in (CONTAINER, PROCESS):
            options = {"context_length": 512, "parallel_slots": 1}
            server.ask(
                API, {"name": runtime, "source": {"path": DEMO}, "runtime": runtime, "options": options}
            )
        yield server
    finally:
        server.end_everything()
        engine.end()


def _start_s(server: ServerProcess, name: str) -> float:
    began = time.perf_counter()
    answer = server.ask(f"{API}/{name}/start", {})
    passed = time.perf_counter() - began
    assert answer["state"] == "running", answer
    server.ask(f"{API}/{name}/stop", {})
    return passed


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
