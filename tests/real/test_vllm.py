"""A real vLLM (built for the CPU) as an engine of a real server, and its parser against the option table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ostler.engines.base import LaunchRequest
from ostler.engines.vllm import Vllm
from ostler.engines.vllm_options import TABLE
from tests.serving import ServerProcess

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
START_LIMIT_S = 600.0
SMALL = {"context_length": 256, "enforce_eager": True, "cpu_kv_cache_gib": 1}


class Served:
    """A server with vLLM, asked as clients ask."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        return self.server.ask(path, body, method=method)

    def create(self, name: str, folder: Path, **fields: Any) -> Any:
        body = {"name": name, "source": {"path": str(folder)}, "options": SMALL, **fields}
        return self.ask("/ostler/v1/models", body)

    def state(self, name: str) -> str:
        return str(self.instance(name)["state"])

    def instance(self, name: str) -> Any:
        return self.ask(f"/ostler/v1/models/{name}/instance")

    def start(self, name: str) -> None:
        """Start it; another thread's patience is not tested here, so the answer is polled for."""
        self.ask(f"/ostler/v1/models/{name}/start", {"wait": False})

    def complete(self, name: str) -> Any:
        """A client's request, which waits until the model runs."""
        body = json.dumps({"model": name, "prompt": "Hello", "max_tokens": 2}).encode()
        request = urllib.request.Request(f"{self.server.url}/v1/completions", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=START_LIMIT_S) as answer:
            return json.loads(answer.read())

    def until(self, name: str, *states: str) -> Any:
        """The instance as soon as it is in one of these states."""
        deadline = time.monotonic() + START_LIMIT_S
        while (found := self.instance(name))["state"] not in states:
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        return found

    def history(self, name: str) -> list[Any]:
        """Everything that was told of the model's instances, oldest first."""
        query = f"/ostler/v1/history?subject_name={name}&kind=instance.&sort=id&limit=200"
        return list(self.ask(query)["items"])

    def told(self, name: str) -> list[str]:
        """Every state of it that was told."""
        return [str(event["kind"]).removeprefix("instance.") for event in self.history(name)]

    def processes(self) -> list[psutil.Process]:
        """Every process of an engine: vLLM's server, its core and its workers."""
        engines = self.server.engines()
        return [*engines, *(child for engine in engines for child in engine.children(recursive=True))]

    def log(self, name: str) -> str:
        with urllib.request.urlopen(f"{self.server.url}/ostler/v1/models/{name}/logs", timeout=30) as answer:
            return str(answer.read().decode())

    def stream(self, path: str, body: Any) -> list[Any]:
        request = urllib.request.Request(
            self.server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            lines = [line.decode().strip() for line in answer]
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert data[-1] == "[DONE]"
        return [json.loads(event) for event in data[:-1]]


@pytest.fixture(scope="module")
def served(vllm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = ServerProcess(
        tmp_path_factory.mktemp("vllm") / "data",
        "--stop-engines-on-exit",
        environment={"OSTLER_VLLM_COMMAND": str(vllm), "HOME": str(tmp_path_factory.mktemp("home"))},
    )
    server.start()
    try:
        yield Served(server)
    finally:
        server.end_everything()


def test_the_option_table_agrees_with_the_real_parser(vllm: Path, tmp_path: Path) -> None:
    ask = (
        "import json; from vllm.entrypoints.launchers.cli_args import make_arg_parser; "
        "from vllm.utils.argparse_utils import FlexibleArgumentParser as P; "
        "rows = make_arg_parser(P())._actions; "
        "print(json.dumps([[a.option_strings, [str(c) for c in a.choices or ()], a.nargs == '+'] for a in "
        "rows]))"
    )
    run = subprocess.run(
        [str(vllm / "bin" / "python"), "-c", ask], capture_output=True, text=True, timeout=300, check=True
    )
    rows = json.loads(run.stdout.splitlines()[-1])
    theirs = {flag for flags, _, _ in rows for flag in flags}
    gone = {flag for row in TABLE.rows if row.until for flag in row.flags}
    assert not TABLE.flags() - gone - theirs - {"--version", "-v"}, "flags that this version does not have"
    old = {flag for row in TABLE.renamed for flag in (*row.flags, *row.negative_flags)}
    assert not theirs - TABLE.flags() - old, "flags that the table does not have"
    for flags, choices, spread in rows:
        for option in TABLE.rows:
            if option.flag in flags and option.until is None:
                assert option.spread == spread, option.name
                assert not option.choices or set(option.choices) == set(choices) - {"None"}, option.name


async def test_its_flags_are_read_without_importing_it(vllm: Path) -> None:
    engine = Vllm(str(vllm))
    found = await engine.executable(LaunchRequest(0, "small", Path("/models/small")))
    assert found.version == "0.32.0"
    assert await engine.sees_gpus(LaunchRequest(0, "small", Path("/models/small"))) is False
    capabilities = await engine.capabilities(found.command)
    assert capabilities.flags is not None and capabilities.warning is None
    assert not {row.flag for row in TABLE.rows if row.flag and row.until is None} - capabilities.flags


def test_a_model_lives_from_its_creation_to_its_end(served: Served, shared: Path) -> None:
    made = served.create("small", shared / "demo-model" / "hf", policy={"restart_limit": 2})
    assert made["engine"] == "vllm"
    served.start("small")
    running = served.until("small", "running", "failed")
    assert running["state"] == "running", running
    assert served.told("small") == ["starting", "loading", "running"]
    assert len(served.processes()) >= 3

    question = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12}
    chat = served.ask("/v1/chat/completions", question)
    assert chat["model"] == "small" and chat["choices"][0]["message"]["content"]
    assert chat["usage"]["completion_tokens"] <= 12
    events = served.stream("/v1/chat/completions", {**question, "stream": True})
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    text = served.ask("/v1/completions", {"model": "small", "prompt": "Hello", "max_tokens": 5})
    assert text["choices"][0]["text"]
    assert [model["id"] for model in served.ask("/v1/models")["data"]] == ["small"]

    with urllib.request.urlopen(f"{running['url']}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    assert "non-default args" in served.log("small") and "VLLM_API_KEY" not in served.log("small")
    for name in (
        "prompt_tokens_total",
        "generation_tokens_total",
        "requests_running",
        "requests_waiting",
        "kv_cache_usage_ratio",
        "time_to_first_token_seconds",
        "request_seconds",
    ):
        assert any(f"\n{metric}" in metrics for metric in Vllm.metric_names[name]), name
    (numbers,) = served.ask("/ostler/v1/instances/metrics")["items"]
    assert (numbers["error"], numbers["told_by"]) == (None, "engine")
    assert 0 < numbers["first_token_p50_s"] <= numbers["request_p95_s"]
    assert numbers["generation_tokens_total"] >= chat["usage"]["completion_tokens"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        served.ask(
            "/v1/chat/completions",
            {"model": "small", "messages": [{"role": "user", "content": "a b " * 999}]},
        )
    assert json.loads(refused.value.read())["error"]["code"] == "context_length_exceeded"
    with pytest.raises(urllib.error.HTTPError, match="401"):  # the engine itself wants its key
        urllib.request.urlopen(f"{running['url']}/v1/models", timeout=30)

    core = next(
        child for child in served.processes() if "EngineCore" in child.name() + " ".join(child.cmdline())
    )
    core.kill()
    served.until("small", "failed", "starting", "loading")
    served.until("small", "running")
    failed = next(event for event in served.history("small") if event["kind"] == "instance.failed")
    assert failed["data"]["diagnosis"] == "Part of the engine ended"
    assert served.told("small")[3:] == ["failed", "restarting", "starting", "loading", "running"]
    assert served.ask("/v1/chat/completions", question)["choices"]

    leftover = served.processes()
    assert len(leftover) >= 3
    served.ask("/ostler/v1/models/small/stop", {})
    assert served.state("small") == "stopped"
    assert not [one for one in leftover if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_a_request_starts_it_and_it_leaves_when_idle(served: Served, shared: Path) -> None:
    served.create("lazy", shared / "demo-model" / "hf", policy={"idle_timeout_s": 1})
    assert served.complete("lazy")["choices"]
    served.until("lazy", "stopped")
    assert served.told("lazy") == ["starting", "loading", "running", "idle", "stopped"]


def test_a_text_model_embeds_where_its_recipe_says_so(served: Served, shared: Path) -> None:
    options = {**SMALL, "runner": "pooling", "convert": "embed"}
    served.create("vectors", shared / "demo-model" / "hf", options=options)
    served.start("vectors")
    found = served.until("vectors", "running", "failed")
    assert found["state"] == "running", found
    answer = served.ask("/v1/embeddings", {"model": "vectors", "input": ["one", "two"]})
    assert len(answer["data"]) == 2 and len(answer["data"][0]["embedding"]) == 256
    served.ask("/ostler/v1/models/vectors/stop", {})


def test_what_cannot_start_says_why(served: Served, shared: Path) -> None:
    options = {**SMALL, "context_length": 100_000}
    served.create("long", shared / "demo-model" / "hf", options=options, policy={"restart_limit": 0})
    served.start("long")
    failed = served.until("long", "running", "failed")
    assert failed["state"] == "failed"
    assert failed["failure"]["diagnosis"] == "Context too long for the model"
    assert "1024" in failed["failure"]["hint"]


def test_a_flag_that_it_does_not_have_is_refused_before_it_is_started(served: Served, shared: Path) -> None:
    served.create("wrong", shared / "demo-model" / "hf", extra_args=["--max-modell-len", "5"])
    assert served.server.status("/ostler/v1/models/wrong/start", {}) == 422
    run = served.ask("/ostler/v1/models/wrong/dry-run", {})
    assert "--max-model-len" in " ".join(run["errors"])
    assert served.told("wrong") == ["refused"]


def test_without_vllm_a_person_is_told_how_to_get_it(shared: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    server = ServerProcess(tmp_path / "data", environment=environment)
    server.start()
    try:
        asked = subprocess.run(
            [
                sys.executable,
                "-m",
                "ostler.cli",
                "--url",
                server.url,
                "run",
                str(shared / "demo-model" / "hf"),
                "hi",
            ],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        server.end_everything()
    assert asked.returncode != 0
    assert "vLLM is not installed" in asked.stderr and "pip install vllm" in asked.stderr
