"""Cortex's API over a real Docker Engine with a real llama-server inside, and over a real vLLM on the CPU."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.docker_engine import LLAMA_IMAGE, DockerEngine, llama_server
from tests.real.docker_house import DockerHouse
from tests.real.test_vllm import START_LIMIT_S
from tests.serving import ServerProcess

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

MODELS = "/admin/models"
PATIENCE_S = 60.0


class Cortex:
    """What a client of Cortex does with one model."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.model = ""

    def make(self, **body: Any) -> dict[str, Any]:
        self.model = f"{MODELS}/{self.server.ask(MODELS, {'mode': 'offline', **body})['id']}"
        return self.item()

    def item(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.ask(self.model)
        return found

    def do(self, act: str, query: str = "", method: str = "POST") -> Any:
        return self.server.ask(f"{self.model}/{act}{query}", method=method)

    def until(self, *states: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Polled, as Cortex's pages do."""
        deadline = time.monotonic() + patience_s
        while (found := self.item())["state"] not in states:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found

    def refusal(self, act: str) -> dict[str, Any]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            self.do(act)
        told: dict[str, Any] = json.loads(refused.value.read())
        assert told["error"]["code"] == refused.value.code
        error: dict[str, Any] = told["error"]
        return error


@pytest.fixture
def house(docker_engine: DockerEngine, tmp_path: Path, demo_model: Path) -> Iterator[DockerHouse]:
    """An Ostler on a real daemon; at the end no model file may have changed in any way."""
    if llama_server() is None:
        pytest.skip("llama-server is missing: run tests/real/install.sh")
    house = DockerHouse(docker_engine, tmp_path / "one", demo_model)
    before = house.fingerprints()
    yield house
    house.server.end_everything()
    assert house.fingerprints() == before


@pytest.fixture
def llama(house: DockerHouse) -> Cortex:
    cortex = Cortex(house.server)
    cortex.make(
        engine_type="llamacpp",
        local_path="demo.gguf",
        served_model_name="demo",
        name="The demo model",
        context_size=512,
        parallel_slots=1,
        ngl=0,
    )
    return cortex


def test_a_llamacpp_model_lives_its_whole_life_in_a_container(house: DockerHouse, llama: Cortex) -> None:
    assert llama.item()["state"] == "stopped" and house.engine.containers() == []
    told = llama.do("dry-run")
    assert told["valid"] and told["image"] == LLAMA_IMAGE and "--alias" in told["command"]
    started = llama.do("start")
    assert started["status"] in ("starting", "loading")
    assert llama.do("readiness", method="GET")["status"] in ("loading", "ready")
    shown = llama.until("running")
    assert shown["container_name"] == "llamacpp-model-1" and shown["port"] > 0
    assert house.engine.containers() == ["llamacpp-model-1"]
    assert llama.do("readiness", method="GET")["status"] == "ready"
    assert house.chat() and house.chat(stream=True).rstrip().endswith("data: [DONE]")
    test = llama.do("test")
    assert test["success"] and test["response"]["choices"][0]["message"]["content"]
    assert "listening" in llama.do("logs", method="GET")
    diagnosed = llama.do("logs", "?diagnose=true", method="GET")
    assert diagnosed["state"] == "running"
    assert (diagnosed["diagnosis"] or {}).get("severity") != "error"  # it may wonder why there is no GPU
    assert llama.do("stop") == {"status": "stopped"} and house.engine.containers() == []
    assert llama.item()["container_name"] is None
    assert house.states() == ["starting", "loading", "running", "stopping", "stopped"]
    assert house.server.ask(llama.model, method="DELETE")["files_preserved"] is True
    assert house.server.ask(MODELS) == []


def test_apply_makes_the_container_anew(house: DockerHouse, llama: Cortex) -> None:
    llama.do("start")
    llama.until("running")
    house.server.ask(llama.model, {"context_size": 256}, method="PATCH")
    deadline = time.monotonic() + PATIENCE_S
    while not llama.item()["restart_required"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert llama.do("apply")["status"] == "applied"
    house.until(lambda found: found["state"] == "running" and not found["drift"] and found["id"] > 1)
    arguments = house.engine.inspect("llamacpp-model-1")["Args"]
    assert arguments[arguments.index("--ctx-size") + 1] == "256"


def test_the_death_of_a_container_is_seen(house: DockerHouse, llama: Cortex) -> None:
    llama.do("start")
    llama.until("running")
    house.engine.docker("kill", "llamacpp-model-1")
    house.until(lambda found: found["state"] == "running" and found["restarts"] == 1)
    assert "failed" in house.states()


def test_a_container_that_ends_at_once_failed_and_is_diagnosed(house: DockerHouse, llama: Cortex) -> None:
    flags = json.dumps([{"flag": "--no-such-flag", "type": "flag"}])
    house.server.ask(llama.model, {"engine_startup_args_json": flags}, method="PATCH")
    llama.do("start", "?override=true")
    shown = llama.until("failed")
    assert shown["state_reason"]
    diagnosed = llama.do("logs", "?diagnose=true", method="GET")
    assert diagnosed["diagnosis"]["detected"] and diagnosed["diagnosis"]["error_type"] == "args"


def test_an_image_that_is_not_here_is_said_and_nothing_runs(house: DockerHouse, llama: Cortex) -> None:
    house.server.ask(llama.model, {"engine_image": "registry.invalid/none:1"}, method="PATCH")
    assert llama.do("dry-run")["valid"] is False
    refused = llama.refusal("start")
    assert refused["code"] == 503 and "docker load" in refused["hint"]
    assert "registry.invalid/none:1" in refused["message"]
    assert house.engine.containers() == []


def test_a_vllm_model_lives_its_whole_life_as_a_process(vllm: Path, tmp_path: Path, shared: Path) -> None:
    settings = {
        "OSTLER_MODELS_DIR": str(shared / "demo-model"),
        "OSTLER_VLLM_COMMAND": str(vllm),
        "OSTLER_CORTEX_RUNTIME": "process",
    }
    server = ServerProcess(tmp_path / "data", environment=settings)
    server.start()
    try:
        cortex = Cortex(server)
        cortex.make(
            engine_type="vllm",
            local_path="hf",
            served_model_name="demo",
            max_model_len=256,
            enforce_eager=True,
            device="cpu",
            engine_startup_env_json=json.dumps([{"key": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}]),
            startup_timeout_sec=START_LIMIT_S,
        )
        assert cortex.do("dry-run")["valid"], cortex.do("dry-run")
        assert cortex.do("start")["status"] in ("starting", "loading")
        cortex.until("running", patience_s=START_LIMIT_S)
        test = cortex.do("test")
        assert test["test_type"] == "chat" and (test["success"] or test["error"])
        summary = cortex.do("logs", "?diagnose=true", method="GET")["summary"]
        assert summary and summary["vllm_version"]
        assert cortex.do("stop") == {"status": "stopped"}
        assert server.ask(cortex.model, method="DELETE")["status"] == "deleted"
    finally:
        server.end_everything()
