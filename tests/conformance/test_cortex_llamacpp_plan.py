"""Cortex's "llama.cpp Integration Plan" (shared/seeds/cortex-llamacpp-plan.md), read in its order.

Each test's docstring is the statement that it holds Ostler to, translated where the plan speaks of its own
code to what a user notices of it: names of containers, mounts, command lines, environment.

Not here:
- Section 4 (React: form, fields, list, calculator): the web console's. What they send and show is tested:
  every field (2), the engine of each model (1), an estimate that follows the options (4.4).
- 5.1 and 5.2: llama-server has a /health of its own, so no wrapper is built; deploy/ has our image's recipe.
- 6.1's LLAMACPP_DEFAULT_*: what is left out is chosen to fit the machine (docs/design/011) instead.
- 7, 9.2, 9.3, 11, 12 and the conclusion: phases, rollout, risks, checklists. That an older database is taken
  on without loss is tests/core's; 9.1 is below.
- 10.1's GPT-OSS 120B itself and 10.2's numbers: no such machine here. benchmarks/ measures both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cortex_client import CortexClient
from tests.conformance.cortex_house import CortexHouse, after
from tests.real.docker_engine import LLAMA_IMAGE, DockerEngine

pytestmark = pytest.mark.real
CHECKOUT = Path(__file__).parents[2]
PLAN_FIELDS = {
    "ngl": None,
    "tensor_split": None,
    "batch_size": 512,
    "threads": None,
    "context_size": 8192,
    "rope_freq_base": None,
    "rope_freq_scale": None,
    "flash_attention": True,
    "mlock": False,
    "no_mmap": False,
    "numa_policy": None,
    "split_mode": None,
}
"""The plan's own fields (2, 3.3) with its defaults."""

SET = {
    "ngl": 7,
    "tensor_split": "0.25,0.75",
    "batch_size": 256,
    "threads": 2,
    "context_size": 2048,
    "rope_freq_base": 10000.0,
    "rope_freq_scale": 0.5,
    "flash_attention": False,
    "mlock": True,
    "no_mmap": True,
    "numa_policy": "distribute",
    "split_mode": "row",
}
"""Each of them set to something else."""


# Executive summary: key requirements


def test_gguf_is_for_llama_cpp(cortex: CortexHouse) -> None:
    """Support GPT-OSS 120B and other GGUF models that vLLM cannot handle: a set of parts too."""
    base = str(cortex.models_dir)
    found = cortex.client.get("/admin/models/inspect-folder", base=base, folder="sharded")
    assert found["engine_recommendation"]["recommended"] == "llamacpp"
    number = cortex.create("big", local_path="sharded")
    assert "big-Q4_0-00001-of-00003.gguf" in cortex.client.dry_run(number)["command_str"]
    refused = cortex.client("POST", "/admin/models", {**VLLM, "local_path": "sharded", "name": "no"})
    assert (refused.status, refused.word) == (400, "gguf_requires_llamacpp")


VLLM = {"mode": "offline", "engine_type": "vllm", "local_path": "hf", "served_model_name": "qwen"}


@pytest.mark.timeout(900)
def test_both_engines_live_the_same_life(with_both: CortexHouse) -> None:
    """Seamless admin experience: same workflows, and OpenAI-compatible endpoints for both engines."""
    numbers = {"llamacpp": with_both.create("llama"), "vllm": with_both.create_vllm("vllm")}
    for engine, number in numbers.items():
        served = with_both.client.models()[number]["served_model_name"]
        assert with_both.client.dry_run(number)["valid"] is True
        assert with_both.client.do(number, "start").status == 200
        assert with_both.client.until_state(number, "running", "failed", patience_s=600) == "running"
        assert with_both.told(served) == ["starting", "loading", "running"]
        assert with_both.client.registry()[served]["engine_type"] == engine
        assert with_both.client.do(number, "test").body["success"] is True
        assert_openai(with_both.client, served)
        assert with_both.client.log(number)
    items = {item["engine_type"]: item for item in with_both.client.get("/admin/models/metrics")}
    assert set(items) == set(numbers)
    for item in items.values():
        assert (item["status"], item["error"]) == ("running", None)
        assert item["prompt_tokens_total"] > 0
        assert item["generation_tokens_total"] > 0
    labels = [line for line in with_both.metrics() if line.startswith("gateway_upstream_selected_by_engine_")]
    assert all(any(f'engine_type="{engine}"' in line for line in labels) for engine in numbers)
    for number in numbers.values():
        with_both.client.stop(number)
        assert with_both.client.state(number) == "stopped"


def assert_openai(client: CortexClient, served: str) -> None:
    """Chat and completions, whole and streamed, have OpenAI's shape whatever the engine."""
    messages = [{"role": "user", "content": "Hi"}]
    whole = client.chat(served)
    assert whole.status == 200, whole.body
    assert whole.body["object"] == "chat.completion"
    assert whole.body["choices"][0]["message"]["content"]
    assert whole.body["usage"]["completion_tokens"] > 0
    text = client("POST", "/v1/completions", {"model": served, "prompt": "Hello", "max_tokens": 4})
    assert text.body["choices"][0]["text"]
    *events, end = client.streamed(
        "/v1/chat/completions", {"model": served, "messages": messages, "max_tokens": 8}
    )
    assert end == "[DONE]"
    assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events)
    assert served in [model["id"] for model in client.get("/v1/models")["data"]]


# 1. Architecture


def test_the_engine_chooses_the_image(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Engine selection: model creation → engine type field → image; vLLM's is vllm/vllm-openai:latest."""
    llama, vllm = in_containers.create("llama"), in_containers.client.create(**VLLM, name="qwen")
    assert in_containers.client.dry_run(llama)["image"] == LLAMA_IMAGE
    assert in_containers.client.dry_run(vllm)["image"].startswith("vllm/vllm-openai:")
    in_containers.client.run(llama)
    assert docker_engine.inspect(f"llamacpp-model-{llama}")["Config"]["Image"] == LLAMA_IMAGE


def test_one_registry_and_one_api(cortex: CortexHouse) -> None:
    """Unified model registry, engine-agnostic API: clients ask by name and see no engine."""
    cortex.client.run(cortex.create("llama"))
    assert cortex.client.registry()["llama"]["engine_type"] == "llamacpp"
    assert_openai(cortex.client, "llama")


# 2. Schema


def test_engines_default_to_vllm(cortex: CortexHouse) -> None:
    """`engine_type` defaults to 'vllm'; existing vLLM models continue working unchanged."""
    body = {name: value for name, value in VLLM.items() if name != "engine_type"}
    number = cortex.client.create(**body, name="qwen")
    shown = cortex.client.models()[number]
    assert shown["engine_type"] == "vllm"
    assert all(shown[name] is None for name in PLAN_FIELDS)


@pytest.mark.parametrize("field", PLAN_FIELDS)
def test_fields_have_the_plans_defaults(cortex: CortexHouse, field: str) -> None:
    """New fields are nullable with sensible defaults: batch 512, context 8192, flash attention on."""
    body = {"mode": "offline", "engine_type": "llamacpp", "local_path": "demo/demo-Q8_0.gguf"}
    number = cortex.client.create(**body, name="demo", served_model_name="demo")
    assert (cortex.client.models()[number][field] or None) == (PLAN_FIELDS[field] or None)


def test_every_field_is_kept(cortex: CortexHouse) -> None:
    """llama.cpp specific parameters: what is sent is stored, shown again, and changed one by one."""
    number = cortex.create("demo", **SET)
    shown = cortex.client.models()[number]
    assert {name: shown[name] for name in SET} == SET
    assert cortex.client.change(number, threads=1).status == 200
    shown = cortex.client.models()[number]
    assert {name: shown[name] for name in SET} == {**SET, "threads": 1}


# 3.1 Configuration


@pytest.fixture
def elsewhere(cortex: CortexHouse, tmp_path: Path, demo_model: Path) -> Iterator[CortexHouse]:
    """A server that sends on to another one as to an engine elsewhere: to `cortex`, where `far` runs."""
    cortex.client.run(cortex.create("far"))
    settings = {"LLAMACPP_GEN_URLS": f" {cortex.server.url} , "}
    house = CortexHouse(tmp_path, demo_model, {"OSTLER_CORTEX_RUNTIME": "process", **settings})
    yield house
    house.clear()
    house.assert_untouched()
    house.server.end_everything()


def test_static_llama_cpp_endpoints(cortex: CortexHouse, elsewhere: CortexHouse) -> None:
    """LLAMACPP_GEN_URLS: optional static llama.cpp endpoints, with commas; polled for health (3.4)."""
    refresh = elsewhere.client.good("POST", "/admin/upstreams/refresh-health")
    assert [(found["url"], found["status"]) for found in refresh["results"]] == [(cortex.server.url, "up")]
    told = elsewhere.client.get("/admin/upstreams")
    assert told["health"][cortex.server.url]["ok"] is True
    assert elsewhere.client.chat("far").status == 200
    assert elsewhere.client.registry()["far"]["engine_type"] == "llamacpp"


# 3.2 Containers and commands


@pytest.mark.parametrize(
    ("field", "value", "flag", "said"),
    [
        ("context_size", 4096, "--ctx-size", "4096"),
        ("ngl", 7, "--gpu-layers", "7"),
        ("ngl", 0, "--gpu-layers", "0"),
        ("tensor_split", "0.25,0.75", "--tensor-split", "0.25,0.75"),
        ("batch_size", 256, "--batch-size", "256"),
        ("threads", 1, "--threads", "1"),
        ("flash_attention", True, "--flash-attn", "on"),
        ("flash_attention", False, "--flash-attn", "off"),
        ("mlock", True, "--load-mode", "mmap+mlock"),
        ("no_mmap", True, "--load-mode", "none"),
        ("numa_policy", "distribute", "--numa", "distribute"),
        ("split_mode", "row", "--split-mode", "row"),
        ("rope_freq_base", 10000.0, "--rope-freq-base", "10000"),
        ("rope_freq_scale", 0.5, "--rope-freq-scale", "0.5"),
    ],
)
def test_fields_become_flags(cortex: CortexHouse, field: str, value: Any, flag: str, said: str) -> None:
    """Build llama-server command arguments: each field by the flag that llama-server has for it now."""
    command = cortex.client.dry_run(cortex.create("demo", **{field: value}))["command"]
    assert after(flag, command) == said


def test_the_command_begins_with_the_model_and_the_address(cortex: CortexHouse) -> None:
    """`llama-server -m model_path --host --port`: on loopback here, where Cortex opened 0.0.0.0."""
    command = cortex.client.dry_run(cortex.create("demo"))["command"]
    assert after("--model", command).endswith("/models/demo/demo-Q8_0.gguf")
    assert after("--host", command) == "127.0.0.1"
    assert "--port" in command
    for switch in ("--mlock", "--no-mmap", "--numa", "--tensor-split"):
        assert switch not in command


@pytest.mark.parametrize(
    ("local_path", "ending"),
    [
        ("demo/demo-Q8_0.gguf", "demo/demo-Q8_0.gguf"),
        ("demo", "demo/demo-Q8_0.gguf"),
        ("sharded", "sharded/big-Q4_0-00001-of-00003.gguf"),
        ("sharded/big-Q4_0-00001-of-00003.gguf", "sharded/big-Q4_0-00001-of-00003.gguf"),
        ("root-Q8_0.gguf", "models/root-Q8_0.gguf"),
    ],
)
def test_the_file_is_found(cortex: CortexHouse, local_path: str, ending: str) -> None:
    """Resolve GGUF file path: a single file, a file in a directory, the first of several parts."""
    command = cortex.client.dry_run(cortex.create("demo", local_path=local_path))["command"]
    assert after("--model", command).endswith(ending)


def test_a_container_as_the_plan_draws_it(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Name, image, read-only /models, environment, 8000/tcp on an ephemeral port, network, labels, shm.

    On purpose otherwise than the plan (docs/design/012): published on 127.0.0.1, private ipc, this model's
    file instead of the whole folder, no health check inside, never restarted by the daemon.
    """
    number = in_containers.create("demo", engine_startup_env_json=[{"key": "LLAMA_LOG_PREFIX", "value": "1"}])
    in_containers.client.run(number)
    told = docker_engine.inspect(f"llamacpp-model-{number}")
    config, host = told["Config"], told["HostConfig"]
    assert config["Image"] == LLAMA_IMAGE
    (mount,) = [mount for mount in told["Mounts"] if mount["Type"] == "bind"]
    assert mount["Source"] == str(in_containers.models_dir / "demo" / "demo-Q8_0.gguf")
    assert mount["Destination"].startswith("/models/")
    assert mount["RW"] is False
    assert after("--model", told["Args"]) == mount["Destination"]
    assert (after("--host", told["Args"]), after("--port", told["Args"])) == ("0.0.0.0", "8000")
    assert "LLAMA_LOG_PREFIX=1" in config["Env"]
    (binding,) = told["NetworkSettings"]["Ports"]["8000/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    assert int(binding["HostPort"]) == in_containers.client.models()[number]["port"]
    assert list(told["NetworkSettings"]["Networks"]) == ["ostler"]
    assert config["Labels"]["ostler.model"] == str(number)
    assert (host["ShmSize"], host["IpcMode"]) == (8 * 2**30, "private")
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert host["RestartPolicy"]["Name"] == "no"


def test_an_older_container_of_it_gives_way(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Stop existing container (same pattern as vLLM): a start after a change makes it anew under its name."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    name = f"llamacpp-model-{number}"
    first = docker_engine.inspect(name)["Id"]
    assert in_containers.client.change(number, context_size=1024).status == 200
    assert in_containers.client.do(number, "apply").body["status"] == "applied"
    in_containers.client.until(number, lambda _: in_containers.told("demo").count("running") == 2)
    assert docker_engine.containers() == [name]
    assert docker_engine.inspect(name)["Id"] != first
    assert after("--ctx-size", docker_engine.inspect(name)["Args"]) == "1024"


def test_a_stop_removes_the_container(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Stop container regardless of engine type: stopped within its grace, and removed."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    in_containers.client.stop(number)
    assert docker_engine.containers() == []


# 3.3 Models: shapes and validation


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"local_path": None}, "llamacpp requires local_path"),
        ({"local_path": "notes"}, "llamacpp requires a GGUF file"),
        ({"local_path": "notes/readme.txt"}, "llamacpp requires a GGUF file"),
        ({"local_path": "hf"}, "llamacpp requires a GGUF file"),
        ({"mode": "online", "repo_id": "org/name", "local_path": None}, "llamacpp requires offline mode"),
    ],
)
def test_what_llama_cpp_cannot_load_is_refused(cortex: CortexHouse, body: dict[str, Any], word: str) -> None:
    """llamacpp requires local_path / llamacpp requires GGUF file: 400 when the model is created."""
    given = {"mode": "offline", "engine_type": "llamacpp", "name": "no", "served_model_name": "no", **body}
    refused = cortex.client("POST", "/admin/models", given)
    assert (refused.status, refused.word) == (400, word)
    assert cortex.client.models() == {}


# 3.4 Health


def test_health_is_polled_for_both_engines(cortex: CortexHouse) -> None:
    """Extend health poller to handle llama.cpp endpoints: one that is not there is told as down."""
    url = "http://127.0.0.1:9"
    entry = {"served_name": "dead", "url": url, "task": "generate", "engine_type": "llamacpp"}
    assert cortex.client.good("POST", "/admin/models/registry", entry)["status"] == "ok"
    refresh = cortex.client.good("POST", "/admin/upstreams/refresh-health")
    assert {found["url"]: found["status"] for found in refresh["results"]}[url] != "up"
    assert cortex.client.get("/admin/upstreams")["health"].get(url, {}).get("ok") is not True
    assert cortex.client.good("DELETE", "/admin/models/registry/dead")["status"] == "ok"


# 3.5 Routing


def test_an_unknown_name_goes_nowhere(cortex: CortexHouse) -> None:
    """Choose by model: a name that nobody serves is an error, and not sent to some other engine."""
    cortex.client.run(cortex.create("demo"))
    assert cortex.client.chat("demo").status == 200
    assert cortex.client.chat("dmeo").status == 404


def test_errors_of_llama_cpp_are_openais(cortex: CortexHouse) -> None:
    """We may need engine-specific error handling: a prompt that is too long is context_length_exceeded."""
    cortex.client.run(cortex.create("demo"))
    refused = cortex.client("POST", "/v1/completions", {"model": "demo", "prompt": "word " * 3000})
    assert refused.status == 400
    assert refused.body["error"]["code"] == "context_length_exceeded"


# 3.6 Metrics


def test_metrics_say_which_engine(cortex: CortexHouse) -> None:
    """gateway_upstream_latency_by_engine_seconds and gateway_upstream_selected_by_engine_total, by engine."""
    cortex.client.run(cortex.create("demo"))
    cortex.client.chat("demo")
    url = cortex.client.registry()["demo"]["url"]
    lines = cortex.metrics()
    latency = [x for x in lines if x.startswith("gateway_upstream_latency_by_engine_seconds_count")]
    assert any('engine_type="llamacpp"' in x and 'path="/v1/chat/completions"' in x for x in latency)
    selected = [x for x in lines if x.startswith("gateway_upstream_selected_by_engine_total")]
    assert any(f'base_url="{url}"' in x and 'engine_type="llamacpp"' in x for x in selected)


# 4.4 The calculator's numbers


@pytest.mark.parametrize("change", [{"context_size": 131072}, {"cache_type_k": "f32", "cache_type_v": "f32"}])
def test_the_estimate_follows_the_options(cortex: CortexHouse, change: dict[str, Any]) -> None:
    """Estimate llama.cpp requirements: model size, KV cache, total; they follow context and cache type."""
    base = {"context_size": 65536}
    small, large = cortex.create("small", **base), cortex.create("large", **{**base, **change})
    before, now = (cortex.client.dry_run(number)["vram_estimate"] for number in (small, large))
    assert now["kv_cache_gb"] > before["kv_cache_gb"]
    assert now["host_memory_gb"] > before["host_memory_gb"]
    assert now["model_weights_gb"] == before["model_weights_gb"]


def test_an_unsaved_form_is_estimated(cortex: CortexHouse) -> None:
    """The calculator works before a model is made: a dry run of what is not saved."""
    body = {"mode": "offline", "engine_type": "llamacpp", "local_path": "demo", "served_model_name": "demo"}
    dry = cortex.client.good("POST", "/admin/models/dry-run", body)
    assert dry["valid"] is True
    assert dry["vram_estimate"]["host_memory_gb"] >= 0
    assert cortex.client.models() == {}


# 5. Image


def test_health_is_llama_servers_own(in_containers: CortexHouse) -> None:
    """Health endpoint: 200 once ready (the plan's wrapper is not needed)."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    engine = CortexClient(in_containers.instance("demo")["url"])
    assert engine("GET", "/health").body == {"status": "ok"}


def test_there_is_a_recipe_for_a_llama_cpp_image() -> None:
    """Create a custom Docker image with llama.cpp server: its Dockerfile ends in llama-server."""
    recipe = (CHECKOUT / "deploy" / "llamacpp-cpu" / "Dockerfile").read_text()
    assert "llama-server" in recipe.rsplit("ENTRYPOINT", 1)[1]


# 6. Configuration


@pytest.mark.parametrize("name", ["LLAMACPP_GEN_URLS", "OSTLER_LLAMACPP_IMAGE", "OSTLER_VLLM_IMAGE"])
def test_settings_are_documented(name: str) -> None:
    """Environment variable documentation."""
    assert name in (CHECKOUT / "docs" / "settings.md").read_text()


def test_compose_gives_models_read_only() -> None:
    """Docker Compose integration: the models folder is mounted read-only."""
    assert "/models:ro" in (CHECKOUT / "deploy" / "compose.yaml").read_text()


# 8. Technical considerations


def test_answers_stream_and_count_alike(cortex: CortexHouse) -> None:
    """8.1 OpenAI-compatible responses, streaming and not; tokens are the engine's own count."""
    number = cortex.create("counted")
    cortex.client.run(number)
    body = {"model": "counted", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    whole = cortex.client("POST", "/v1/chat/completions", body).body["usage"]
    events = cortex.client.streamed(
        "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}
    )
    (streamed,) = [usage for event in events[:-1] if (usage := json.loads(event).get("usage"))]
    assert streamed["prompt_tokens"] == whole["prompt_tokens"]
    cortex.client.until(number, lambda _: len(cortex.client.get("/admin/usage", model="counted")) == 2)
    rows = cortex.client.get("/admin/usage", model="counted")
    assert {row["prompt_tokens"] for row in rows} == {whole["prompt_tokens"]}


def test_parts_are_served_as_they_are(cortex: CortexHouse, demo_parts: Callable[[], str]) -> None:
    """8.2 GGUF files split across multiple parts: served from their parts, none of them touched."""
    number = cortex.create("parts", local_path=demo_parts())
    cortex.client.run(number)
    assert cortex.client.chat("parts").status == 200


@pytest.fixture
def demo_parts(cortex: CortexHouse, shared: Path) -> Callable[[], str]:
    """Puts the demo model in parts into the models folder, and gives its first part's path there."""

    def put() -> str:
        source = shared / "demo-model" / "split"
        folder = cortex.models_dir / "parts"
        folder.mkdir(exist_ok=True)
        for file in sorted(source.glob("*.gguf")):
            (folder / file.name).write_bytes(file.read_bytes())
        cortex.untouched()
        return f"parts/{min(path.name for path in folder.iterdir())}"

    return put


def test_memory_is_never_given_away_twice(small_gpu: CortexHouse) -> None:
    """8.3 Resource conflict detection (prevent over-allocation): what does not fit is refused."""
    number = small_gpu.create("demo", context_size=4_000_000, ngl=99)
    refused = small_gpu.client.do(number, "start")
    assert refused.status == 409, refused.body
    assert "GiB" in str(refused.body) or "GB" in str(refused.body)
    assert small_gpu.client.state(number) == "stopped"


def test_two_containers_have_port_8000_each(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """8.4 Both engines need to expose port 8000 in containers: ephemeral ports outside."""
    numbers = [in_containers.create("one"), in_containers.create("two")]
    for number in numbers:
        in_containers.client.run(number)
    ports = {in_containers.client.models()[number]["port"] for number in numbers}
    assert len(ports) == 2
    for number in numbers:
        assert after("--port", docker_engine.inspect(f"llamacpp-model-{number}")["Args"]) == "8000"
    assert in_containers.client.chat("one").status == in_containers.client.chat("two").status == 200


# 9. Migration


def test_bodies_without_llama_fields_go_on(cortex: CortexHouse) -> None:
    """9.1 All existing vLLM models continue working unchanged: an old client's body and its change."""
    number = cortex.client.create(mode="online", repo_id="org/name", name="old", served_model_name="old")
    shown = cortex.client.models()[number]
    assert (shown["mode"], shown["repo_id"], shown["engine_type"]) == ("online", "org/name", "vllm")
    assert cortex.client.change(number, max_model_len=2048).body == {"status": "ok"}
    assert cortex.client.models()[number]["max_model_len"] == 2048


# 10. Success: functional


def test_containers_start_and_stop_reliably(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """llama.cpp containers start/stop reliably: again and again, each time by every state."""
    number = in_containers.create("demo")
    for _ in range(4):
        in_containers.client.run(number)
        assert in_containers.client.chat("demo").status == 200
        in_containers.client.stop(number)
        assert docker_engine.containers() == []
    assert in_containers.told("demo") == ["starting", "loading", "running", "stopping", "stopped"] * 4
