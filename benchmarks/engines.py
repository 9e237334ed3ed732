"""What the gateway adds to a request, for llama.cpp and for vLLM.

The gateway has no branch by engine, so what may differ is what it is given: the engine's name in its counts,
and the engine's answer. Both are measured, with requests directly and through the gateway in turn, some for
one engine and some for the other, so that noise of the machine falls on all:

- `echo`: one upstream that costs nothing, published once as llama.cpp and once as vLLM. Its times are steady
  enough to compare, and the goal is about these.
- `real`: llama-server and vLLM (on the CPU) with the demo model, one token each. An engine takes milliseconds
  that vary by more than the gateway adds, so this only tells whether they differ beyond the margin.

`margin_ms` is half of the 95 % interval of the median, `difference_margin_ms` that of the difference.

What is missing is named. Run alone with `python -m benchmarks.engines`.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway import ROOT, free_port, python, running
from benchmarks.proxies.load import MESSAGE
from benchmarks.startup import DEMO
from tests.real.docker_engine import llama_server
from tests.real.vllm_environment import is_complete, vllm_environment

LLAMA, VLLM = "echo", "twin"
"""The models' names in `proxies/ours.py`, which says which is of which engine."""
ECHO_ROUNDS, REAL_ROUNDS, WARM_UP, BLOCKS = 6_000, 600, 100, 10
READY_S = 600.0
SHARED = Path(os.environ.get("OSTLER_SHARED", ROOT.parent / "shared"))


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: a port, and the model's name there."""

    port: int
    model: str


def measure() -> dict[str, Any]:
    """Milliseconds that the gateway adds (medians), and by how much those of the engines differ."""
    found: dict[str, Any] = {"missing": missing()}
    port, ours = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    with running("echo", python("echo", str(port)), port), _gateway(ours, url, url):
        echo = found["echo"] = _compare(port, port, ours, ECHO_ROUNDS)
        echo["difference_percent"] = round(100 * echo["difference_ms"] / echo["llamacpp"]["added_ms"], 1)
    if not found["missing"]:
        with _real_engines() as (llama, vllm):
            urls = [f"http://127.0.0.1:{port}" for port in (llama, vllm)]
            with _gateway(ours, *urls):
                found["real"] = _compare(llama, vllm, ours, REAL_ROUNDS)
    return found


def missing() -> list[str]:
    """What this machine lacks for the real engines."""
    there = {
        "llama-server": llama_server() is not None,
        "vLLM": is_complete(vllm_environment()),
        f"{SHARED}/demo-model": (SHARED / "demo-model" / "hf").is_dir(),
    }
    return [f"{what}: run tests/real/install.sh" for what, is_there in there.items() if not is_there]


def _gateway(port: int, *urls: str) -> Any:
    return running("ostler", python("ours", str(port), *urls), port)


def _compare(llama: int, vllm: int, gateway: int, rounds: int) -> dict[str, Any]:
    """Ask each engine directly and through the gateway in turn, some rounds of the one, then of the other."""
    both = {
        "llamacpp": (Way(llama, LLAMA), Way(gateway, LLAMA)),
        "vllm": (Way(vllm, VLLM), Way(gateway, VLLM)),
    }
    direct: dict[str, list[float]] = {name: [] for name in both}
    through: dict[str, list[float]] = {name: [] for name in both}
    for ways in both.values():
        in_turn(ways, WARM_UP)
    for _ in range(BLOCKS):
        for name, ways in both.items():
            seconds = in_turn(ways, rounds // BLOCKS)
            direct[name] += seconds[0]
            through[name] += seconds[1]
    added = {name: _added(direct[name], through[name]) for name in both}
    one, other = added.values()
    return {
        "rounds": rounds,
        **{name: {"direct_ms": _ms(direct[name]), **told} for name, told in added.items()},
        "difference_ms": round(abs(one["added_ms"] - other["added_ms"]), 4),
        "difference_margin_ms": round(math.hypot(one["margin_ms"], other["margin_ms"]), 4),
    }


def in_turn(ways: Sequence[Way], rounds: int) -> list[list[float]]:
    """Seconds of each request by way, which are asked in a new order in each round.

    A fixed order would give each the same forerunner, and so to one of them the warmer caches.
    """
    connections = [http.client.HTTPConnection("127.0.0.1", way.port, timeout=60) for way in ways]
    seconds: list[list[float]] = [[] for _ in ways]
    places, rng = list(range(len(ways))), random.Random(rounds)
    for _ in range(rounds):
        rng.shuffle(places)
        for place in places:
            seconds[place].append(_ask(connections[place], ways[place].model))
    for connection in connections:
        connection.close()
    return seconds


def _ask(connection: http.client.HTTPConnection, model: str) -> float:
    messages = [{"role": "user", "content": MESSAGE}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 1, "temperature": 0})
    headers = {"content-type": "application/json", "authorization": "Bearer sk-none"}
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    passed = time.perf_counter() - began
    if answer.status != 200:
        raise RuntimeError(f"{model} answered {answer.status}: {text[:300]!r}")
    return passed


def _added(direct: Sequence[float], through: Sequence[float]) -> dict[str, float]:
    """The median of the differences within a round, and half of its 95 % interval (by order statistics)."""
    more = sorted(b - a for a, b in zip(direct, through, strict=True))
    half = round(0.98 * len(more) ** 0.5)
    low, high = more[len(more) // 2 - half], more[len(more) // 2 + half]
    return {"added_ms": _ms(more), "margin_ms": round(500 * (high - low), 4)}


def _ms(seconds: Sequence[float]) -> float:
    return round(1000 * statistics.median(seconds), 4)


@contextmanager
def _real_engines() -> Iterator[tuple[int, int]]:
    """The ports of llama-server and of vLLM with the demo model."""
    llama, vllm = free_port(), free_port()
    server = [str(llama_server()), "--model", DEMO, "--ctx-size", "512", "--parallel", "1"]
    server += ["--alias", LLAMA, "--host", "127.0.0.1", "--port", str(llama)]
    command = [str(vllm_environment() / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(SHARED / "demo-model" / "hf"), "--served-model-name", VLLM]
    command += ["--host", "127.0.0.1", "--port", str(vllm), "--max-model-len", "256", "--enforce-eager"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="ostler-bench-"))
        stack.enter_context(running("llama-server", server, llama))
        stack.enter_context(running("vllm", command, vllm, wait_s=READY_S, HOME=home, **settings))
        for port in (llama, vllm):
            _wait_until_ready(port)
        yield llama, vllm


def _wait_until_ready(port: int) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        with suppress(OSError):  # urllib's errors are of this family too: not ready yet
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing is ready on port {port}")


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
