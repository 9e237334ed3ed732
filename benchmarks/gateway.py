"""The gateway against its yardsticks, side by side in one run, with the same upstream.

Measured: an engine that costs nothing, asked directly; the bare forwarder of the same libraries; Ostler's
gateway with real keys, names, limits and accounting; the Go standard library's reverse proxy (where `go`
is installed); LiteLLM's proxy (where `.venv-litellm` exists: python -m venv .venv-litellm &&
.venv-litellm/bin/pip install 'litellm[proxy]'). What is missing is named, not left out silently.
Slices of each are interleaved, so that noise of the machine falls on all of them.

Run: python -m benchmarks.gateway [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
LITELLM = ROOT / ".venv-litellm"
DIRECT, BARE, OURS, GO, LITE = "direct", "bare forwarder", "ostler", "go reverse proxy", "litellm"
Result = dict[str, Any]


@dataclass
class Proxy:
    """One process under measurement."""

    name: str
    port: int
    process: psutil.Process | None

    def cpu_s(self) -> float:
        """CPU seconds that it and its children have used."""
        if self.process is None:
            return 0.0
        every = [self.process, *self.process.children(recursive=True)]
        times = [process.cpu_times() for process in every]
        return sum(t.user + t.system for t in times)

    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(self.process.memory_info().rss) if self.process else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(name: str, command: list[str], port: int, *, wait_s: float = 30, **env: str) -> Iterator[Proxy]:
    """A server process, from when it answers to its end."""
    with tempfile.TemporaryFile() as output:
        environ = {**os.environ, **env}
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env=environ, start_new_session=True
        )
        try:
            until = time.monotonic() + wait_s
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    output.seek(0)
                    raise RuntimeError(f"{name} did not start: {output.read()[-2000:].decode()}")
                time.sleep(0.05)
            yield Proxy(name, port, psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            with suppress(ProcessLookupError):  # what it has started shares its session
                os.killpg(process.pid, signal.SIGKILL)


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.proxies.{module}", *arguments]


def load(proxy: Proxy, **asked: Any) -> Result:
    """One measurement by the load process, with the CPU that the proxy used for it."""
    before = proxy.cpu_s()
    answer = subprocess.run(
        python("load"),
        cwd=ROOT,
        input=json.dumps({"port": proxy.port, **asked}),
        capture_output=True,
        text=True,
        check=True,
    )
    seen: Result = json.loads(answer.stdout)
    pieces = seen.get("requests") or seen.get("pieces") or 1
    seen["cpu_us"] = round(1e6 * (proxy.cpu_s() - before) / pieces, 1)
    return seen


@contextmanager
def everything(folder: Path, missing: list[str], *, with_litellm: bool) -> Iterator[list[Proxy]]:
    """The upstream and every proxy that can run here."""
    with ExitStack() as stack:
        port = free_port()
        upstream = stack.enter_context(running(DIRECT, python("echo", str(port)), port))
        url = f"http://127.0.0.1:{port}"
        proxies = [Proxy(DIRECT, upstream.port, None)]
        for name, module in ((BARE, "bare"), (OURS, "ours")):
            port = free_port()
            proxies.append(stack.enter_context(running(name, python(module, str(port), url), port)))
        if shutil.which("go"):
            port = free_port()
            binary = build_go(folder)
            proxies.append(stack.enter_context(running(GO, [str(binary), str(port), url], port)))
        else:
            missing.append("go (the Go reverse proxy): apt-get install golang-go")
        if not with_litellm:
            pass
        elif (LITELLM / "bin" / "litellm").exists():
            port = free_port()
            command = [str(LITELLM / "bin" / "litellm"), "--config", str(litellm_config(folder, url))]
            command += ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
            quiet = {"LITELLM_LOG": "ERROR", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
            proxies.append(stack.enter_context(running(LITE, command, port, wait_s=120, **quiet)))
        else:
            missing.append("litellm: python -m venv .venv-litellm, then install 'litellm[proxy]' in it")
        yield proxies


def build_go(folder: Path) -> Path:
    """The Go proxy, compiled."""
    binary = folder / "go_proxy"
    subprocess.run(
        ["go", "build", "-o", str(binary), "main.go"],
        cwd=ROOT / "benchmarks" / "go_proxy",
        env={**os.environ, "GOCACHE": str(folder / "go-cache"), "GO111MODULE": "off"},
        check=True,
    )
    return binary


def litellm_config(folder: Path, url: str) -> Path:
    """LiteLLM with one model, and nothing that it could be spared."""
    path = folder / "litellm.yaml"
    path.write_text(
        "model_list:\n"
        "  - model_name: echo\n"
        "    litellm_params:\n"
        f"      {{model: openai/echo, api_base: '{url}/v1', api_key: none}}\n"
        "litellm_settings: {telemetry: false, num_retries: 0}\n"
    )
    return path


def measure_whole(proxies: list[Proxy], connections: int, seconds: float, rounds: int) -> Result:
    """CPU per request and latency of whole answers, in interleaved slices."""
    slices: dict[str, list[Result]] = {proxy.name: [] for proxy in proxies}
    for _ in range(rounds):
        for proxy in proxies:
            slices[proxy.name].append(load(proxy, mode="whole", connections=connections, seconds=seconds))
    return {name: summed(seen) for name, seen in slices.items()}


def summed(seen: list[Result]) -> Result:
    """Slices of one proxy as one: the median of each number, the sum of what is counted."""
    whole = {key: round(statistics.median(s[key] for s in seen), 3) for key in seen[0]}
    for key in ("requests", "errors", "cut", "pieces"):
        if key in whole:
            whole[key] = sum(s[key] for s in seen)
    return whole


def measure_streams(proxies: list[Proxy], count: int, rounds: int, **asked: Any) -> Result:
    """First piece, gaps and cuts of many streams at once."""
    slices: dict[str, list[Result]] = {proxy.name: [] for proxy in proxies}
    for _ in range(rounds):
        for proxy in proxies:
            slices[proxy.name].append(load(proxy, mode="streams", connections=count, **asked))
    return {name: summed(seen) for name, seen in slices.items()}


def measure_memory(proxy: Proxy, first: int, last: int) -> Result:
    """Resident memory after `first` requests and after `last`."""
    load(proxy, mode="whole", connections=32, requests=first)
    before = proxy.rss_bytes()
    load(proxy, mode="whole", connections=32, requests=last - first)
    after = proxy.rss_bytes()
    return {
        "after_first": first,
        "first_mb": round(before / 2**20, 1),
        "after_last": last,
        "last_mb": round(after / 2**20, 1),
        "growth_percent": round(100 * (after - before) / before, 2),
    }


def ratios(whole: Result, streams: Result, memory: Result) -> Result:
    """What the issue asks for, as numbers."""
    at32 = whole["32"]
    found: Result = {
        "cpu_to_bare_forwarder": round(at32[OURS]["cpu_us"] / at32[BARE]["cpu_us"], 2),
        "memory_growth_percent": memory["growth_percent"],
        "streams_cut": sum(level[OURS]["cut"] for level in streams.values()),
    }
    if GO in at32:
        found["cpu_to_go"] = round(at32[OURS]["cpu_us"] / at32[GO]["cpu_us"], 2)
    if LITE in at32:
        found["throughput_to_litellm"] = round(at32[OURS]["per_second"] / at32[LITE]["per_second"], 1)
    for count, level in streams.items():
        for key in ("first_p50_ms", "gap_p99_ms"):
            found[f"{key}_over_direct_at_{count}"] = round(level[OURS][key] - level[DIRECT][key], 2)
    return found


def measure(*, quick: bool = False, litellm: bool = True) -> Result:
    """Measure everything; the result is ready for JSON."""
    raise_file_limit()
    missing: list[str] = []
    seconds, rounds = (1.0, 2) if quick else (3.0, 5)
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as folder:
        with everything(Path(folder), missing, with_litellm=litellm) as proxies:
            for proxy in proxies:
                load(proxy, mode="whole", connections=8, requests=200)
            whole = {str(n): measure_whole(proxies, n, seconds, rounds) for n in (1, 32, 256)}
            fast = [proxy for proxy in proxies if proxy.name != LITE]
            asked: dict[str, Any] = {"chunks": 64, "interval_ms": 50}
            if quick:
                asked = {"chunks": 16, "interval_ms": 50}
            streams = {
                "256": measure_streams(fast, 256, 1 if quick else 3, **asked),
                "1000": measure_streams(fast, 1000, 1, ramp_s=3.0, **{**asked, "interval_ms": 250}),
            }
            ours = next(proxy for proxy in proxies if proxy.name == OURS)
            memory = measure_memory(ours, *((2_000, 10_000) if quick else (10_000, 100_000)))
    return {
        "benchmark": "gateway",
        "quick": quick,
        "cores": os.cpu_count(),
        "missing": missing,
        "whole": whole,
        "streams": streams,
        "memory": memory,
        "ratios": ratios(whole, streams, memory),
    }


def raise_file_limit() -> None:
    """A thousand streams need a few thousand open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 8192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))


def table(result: Result) -> str:
    """The result as a person reads it (Markdown)."""
    lines = ["| whole answers | connections | CPU µs/request | p50 ms | p99 ms | requests/s | errors |"]
    lines.append("|---|---|---|---|---|---|---|")
    for connections, level in result["whole"].items():
        for name, seen in level.items():
            cpu = "-" if name == DIRECT else seen["cpu_us"]
            lines.append(
                f"| {name} | {connections} | {cpu} | {seen['p50_ms']} | {seen['p99_ms']} "
                f"| {seen['per_second']:.0f} | {seen['errors']} |"
            )
    lines += ["", "| streams | at once | first p50 ms | first p99 ms | gap p99 ms | CPU µs/piece | cut |"]
    lines.append("|---|---|---|---|---|---|---|")
    for count, level in result["streams"].items():
        for name, seen in level.items():
            cpu = "-" if name == DIRECT else seen["cpu_us"]
            lines.append(
                f"| {name} | {count} | {seen['first_p50_ms']} | {seen['first_p99_ms']} "
                f"| {seen['gap_p99_ms']} | {cpu} | {seen['cut']} |"
            )
    memory = result["memory"]
    lines += ["", f"Memory: {memory['first_mb']} MB after {memory['after_first']} requests, "]
    lines[-1] += f"{memory['last_mb']} MB after {memory['after_last']} ({memory['growth_percent']} %)."
    lines += [f"- {name}: {value}" for name, value in result["ratios"].items()]
    lines += [f"Missing: {what}" for what in result["missing"]]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="shorter slices: for looking, not for judging")
    parser.add_argument("--json", type=Path, help="write the result to this file as well")
    parser.add_argument("--no-litellm", action="store_true", help="leave LiteLLM out")
    asked = parser.parse_args()
    result = measure(quick=asked.quick, litellm=not asked.no_litellm)
    print(table(result))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
