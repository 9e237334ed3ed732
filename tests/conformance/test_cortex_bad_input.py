"""What is wrong with a request, a file or a daemon is told, and nothing is lost: Cortex's paths.

Everything that its reference marks as a defect, and the faults that it does not speak of. More of both:
faults of containers in tests/real/test_docker.py, a stop that hangs and one that is refused in
test_cortex_model_management.py, single fields and folders in tests/api/dialects/cortex/.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conformance.cortex_house import CortexHouse, after
from tests.library.gguf_files import write_shards
from tests.real.docker_engine import DockerEngine

pytestmark = pytest.mark.real
LLAMA = {"mode": "offline", "engine_type": "llamacpp", "local_path": "demo", "served_model_name": "x"}
ARGS, ENV = "engine_startup_args_json", "engine_startup_env_json"


@pytest.mark.parametrize(
    "wrong",
    [
        {"local_path": "../outside.gguf"},
        {"local_path": "demo/../../outside.gguf"},
        {"local_path": "/etc/passwd"},
        {"local_path": "/models/../../etc/passwd"},
        {"local_path": "demo\x00.gguf"},
        {"local_path": "absent/absent.gguf"},
        {"draft_model_path": "../draft.gguf"},
        {"lora_adapters_json": '[{"path": "../lora.gguf"}]'},
        {"chat_template_file": "../template.jinja"},
        {"grammar_file": "/models/../grammar.gbnf"},
        {"engine_type": "tensorrt"},
        {"engine_type": "LLAMACPP"},
        {"mode": "sideways"},
        {"mode": None},
        {"served_model_name": " blank before"},
        {"served_model_name": "blank behind "},
        {"served_model_name": "x/"},
        {"served_model_name": "../x"},
        {"served_model_name": "x\ny"},
        {"served_model_name": ""},
        {"served_model_name": "x" * 5000},
        {"ngl": "many"},
        {"context_size": -5},
        {"threads": 1.5},
        {"tensor_split": "a,b"},
        {"cache_type_k": "q99"},
        {ARGS: [{"flag": "--host", "type": "string", "value": "0.0.0.0"}]},
        {ARGS: [{"flag": "--port=1", "type": "flag"}]},
        {ARGS: [{"flag": "--api-key", "type": "string", "value": "mine"}]},
        {ARGS: [{"flag": "no-dash", "type": "flag"}]},
        {ARGS: "{not json"},
        {ENV: [{"key": "CUDA_VISIBLE_DEVICES", "value": "0"}]},
        {ENV: [{"key": "LLAMA_API_KEY", "value": "mine"}]},
        {ENV: [{"key": "A=B", "value": "x"}]},
        {ENV: "[1]"},
        {"custom_request_json": "{not json"},
    ],
    ids=lambda wrong: "-".join(f"{name}={value}"[:40] for name, value in wrong.items()),
)
def test_a_model_that_cannot_be_is_refused(cortex: CortexHouse, wrong: dict[str, Any]) -> None:
    answer = cortex.client("POST", "/admin/models", {**LLAMA, **wrong})
    assert answer.status in (400, 403, 404, 409, 422), (answer.status, answer.body)
    assert answer.body.get("detail") or answer.body["error"]["detail_text"]
    assert cortex.client.models() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"served_model_name": "taken"},
        {"served_model_name": "blank behind "},
        {"context_size": -1},
        {"draft_model_path": "../draft.gguf"},
        {ARGS: [{"flag": "--host", "type": "string", "value": "0.0.0.0"}]},
        {ENV: [{"key": "HF_HUB_OFFLINE", "value": "0"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_that_cannot_be_changes_nothing(cortex: CortexHouse, change: dict[str, Any]) -> None:
    number, _ = cortex.create("mine"), cortex.create("taken")
    before = cortex.client.models()[number]
    assert cortex.client.change(number, **change).status in (400, 409, 422)
    assert cortex.client.models()[number] == before


@pytest.mark.parametrize("name", ["org/name:Q8_0", "a@b+c.d_e-f:g", "Two words", "an org/a  name: Q8 0"])
def test_served_names_with_slashes_colons_and_blanks_are_served(cortex: CortexHouse, name: str) -> None:
    number = cortex.create(name)
    assert cortex.client.models()[number]["served_model_name"] == name
    cortex.client.run(number)
    assert cortex.client.chat(name).body["model"] == name
    assert name in cortex.client.registry()
    assert name in [model["id"] for model in cortex.client.get("/v1/models")["data"]]
    in_urls = quote(name, safe=""), quote(name)  # slashes encoded, and as they are
    for text in in_urls:
        assert cortex.client.get(f"/v1/models/{text}/constraints")["served_model_name"] == name
        assert cortex.client("DELETE", f"/admin/models/registry/{text}").status == 409
        assert cortex.server.ask(f"/ostler/v1/models/{text}/instance")["state"] == "running"
    assert f'engine="llamacpp",model="{name}"' in "\n".join(cortex.metrics())


def test_a_served_name_is_taken_once(cortex: CortexHouse) -> None:
    cortex.create("once")
    again = cortex.client("POST", "/admin/models", {**LLAMA, "served_model_name": "once"})
    assert again.status == 409
    assert len(cortex.client.models()) == 1


def test_no_gpu_layers_are_none(cortex: CortexHouse) -> None:
    number = cortex.create("cpu", ngl=0)
    assert cortex.client.models()[number]["ngl"] == 0
    assert after("--gpu-layers", cortex.client.dry_run(number)["command"]) == "0"
    assert cortex.client.change(number, ngl=3).status == 200
    assert cortex.client.change(number, ngl=0).status == 200
    assert cortex.client.models()[number]["ngl"] == 0


def test_the_file_that_was_chosen_is_served_also_beside_parts_of_another(cortex: CortexHouse) -> None:
    folder = cortex.models_dir / "mixed"
    if not folder.exists():
        folder.mkdir()
        write_shards(folder, "another-Q4_0", 2)
        shutil.copy(cortex.models_dir / "demo" / "demo-Q8_0.gguf", folder)
        cortex.untouched()
    for name in ("demo-Q8_0.gguf", "another-Q4_0-00001-of-00002.gguf"):
        number = cortex.create(name, local_path=f"mixed/{name}")
        assert after("--model", cortex.client.dry_run(number)["command"]).endswith(f"/mixed/{name}")
        assert cortex.client.models()[number]["local_path"] == f"mixed/{name}"


def test_a_change_of_request_defaults_holds_at_once(cortex: CortexHouse) -> None:
    number = cortex.create("quick", custom_request_json={"max_tokens": 3, "temperature": 0})
    cortex.client.run(number)
    ask = {"model": "quick", "messages": [{"role": "user", "content": "Tell me a story."}]}
    assert cortex.client.good("POST", "/v1/chat/completions", ask)["usage"]["completion_tokens"] <= 3
    assert cortex.client.change(number, custom_request_json={"max_tokens": 5, "temperature": 0}).status == 200
    assert cortex.client.get("/v1/models/quick/constraints")["request_defaults"]["max_tokens"] == 5
    assert cortex.client.models()[number]["restart_required"] is False
    assert 3 < cortex.client.good("POST", "/v1/chat/completions", ask)["usage"]["completion_tokens"] <= 5


def test_two_starts_at_once_are_one(cortex: CortexHouse) -> None:
    number = cortex.create("twice")
    with ThreadPoolExecutor(4) as people:
        answers = list(people.map(lambda _: cortex.client.do(number, "start"), range(4)))
    assert {answer.status for answer in answers} == {200}
    cortex.client.until_state(number, "running")
    assert cortex.told("twice") == ["starting", "loading", "running"]
    assert len(cortex.server.engines()) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:0", "http://127.0.0.1:0/v1", "http://:0"])
def test_nothing_is_routed_to_port_0(cortex: CortexHouse, url: str) -> None:
    entry = {"served_name": "nowhere", "url": url, "task": "generate"}
    refused = cortex.client("POST", "/admin/models/registry", entry)
    assert (refused.status, refused.word) == (400, "invalid_registry_entry")
    assert cortex.client.registry() == {}
    assert cortex.client.chat("nowhere").status == 404


def test_two_starts_are_one_container(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    number = in_containers.create("twice")
    with ThreadPoolExecutor(4) as people:
        answers = list(people.map(lambda _: in_containers.client.do(number, "start"), range(4)))
    assert {answer.status for answer in answers} == {200}
    in_containers.client.until_state(number, "running")
    assert in_containers.told("twice") == ["starting", "loading", "running"]
    assert docker_engine.containers() == [f"llamacpp-model-{number}"]


def test_a_start_while_the_daemon_is_down(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    number = in_containers.create("early")
    docker_engine.stop()
    try:
        refused = in_containers.client.do(number, "start")
        assert refused.status == 503 and "Docker daemon" in refused.body["error"]["detail_text"]
        assert in_containers.client.dry_run(number)["valid"] is False
        assert in_containers.client.state(number) == "stopped"
    finally:
        docker_engine.start()
    in_containers.client.run(number)


def test_a_server_that_starts_while_the_daemon_is_down(
    in_containers: CortexHouse, docker_engine: DockerEngine
) -> None:
    number = in_containers.create("adopted")
    in_containers.client.run(number)
    in_containers.server.kill()
    docker_engine.stop()
    try:
        in_containers.start()
        unseen = in_containers.client.models()[number]
        assert unseen["state"] == "loading" and "does not answer" in unseen["state_reason"]
        assert in_containers.client.get(f"/admin/models/{number}/readiness")["status"] == "loading"
    finally:
        docker_engine.start()
    in_containers.client.until_state(number, "running")
    assert in_containers.client.chat("adopted").status == 200
    assert docker_engine.containers() == [f"llamacpp-model-{number}"]


def test_a_container_that_is_removed_by_hand(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    number = in_containers.create("gone")
    in_containers.client.run(number)
    docker_engine.docker("rm", "--force", f"llamacpp-model-{number}")
    in_containers.client.until(number, lambda _: in_containers.told("gone").count("running") == 2)
    assert in_containers.told("gone")[2:5] == ["running", "failed", "restarting"]
    assert in_containers.client.chat("gone").status == 200


def test_a_container_that_ends_at_once(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    number = in_containers.create("short", **{ARGS: [{"flag": "--no-such-flag", "type": "flag"}]})
    in_containers.client.do(number, "start", override="true")
    in_containers.client.until_state(number, "failed")
    shown = in_containers.client.models()[number]
    assert shown["state_reason"] and shown["port"] is None and shown["container_name"] is None
    assert in_containers.client.get(f"/admin/models/{number}/readiness")["status"] == "error"
    assert "short" not in in_containers.client.registry()
    assert docker_engine.containers() == []


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("local-folders", {"base": "/etc"}),
        ("local-folders", {"base": "BASE/../.."}),
        ("inspect-folder", {"base": "/", "folder": "etc"}),
        ("inspect-folder", {"base": "BASE", "folder": "../.."}),
        ("inspect-folder", {"base": "BASE", "folder": "/etc"}),
        ("inspect-folder", {"base": "BASE/../../..", "folder": "etc"}),
        ("inspect-folder", {"base": "BASE", "folder": "absent"}),
    ],
)
def test_nothing_outside_is_shown(cortex: CortexHouse, path: str, query: dict[str, str]) -> None:
    given = {name: value.replace("BASE", str(cortex.models_dir)) for name, value in query.items()}
    answer = cortex.client("GET", f"/admin/models/{path}", **given)
    assert answer.status in (400, 403, 404, 422), answer.body
    assert "passwd" not in str(answer.body)


@pytest.mark.parametrize("verb", ["start", "stop", "apply", "archive", "test", "dry-run"])
def test_a_model_that_is_not_there_is_not_found(cortex: CortexHouse, verb: str) -> None:
    assert cortex.client.do(4711, verb).word == ("model_not_found" if verb == "test" else "not_found")
    assert cortex.client("POST", f"/admin/models/nought/{verb}").status == 422


@pytest.fixture
def broken(cortex: CortexHouse) -> Path:
    """A folder in the models folder with files that a download or a disk has spoilt."""
    folder = cortex.models_dir / "broken"
    if not folder.exists():
        whole = (cortex.models_dir / "demo" / "demo-Q8_0.gguf").read_bytes()
        for name in ("short", "tail", "config"):
            (folder / name).mkdir(parents=True)
        (folder / "short" / "short-Q8_0.gguf").write_bytes(whole[:100])
        (folder / "tail" / "tail-Q8_0.gguf").write_bytes(whole[: len(whole) // 2])
        (folder / "config" / "config.json").write_text('{"model_type": "qwen3", ')
        weights = (cortex.models_dir / "hf" / "model.safetensors").read_bytes()
        (folder / "config" / "model.safetensors").write_bytes(weights)
        cortex.untouched()
    return folder


@pytest.mark.parametrize(
    ("engine", "folder"), [("llamacpp", "short"), ("llamacpp", "tail"), ("vllm", "config")]
)
def test_files_that_are_cut_or_spoilt_are_named(
    cortex: CortexHouse, broken: Path, engine: str, folder: str
) -> None:
    seen = cortex.client("GET", "/admin/models/inspect-folder", base=str(broken), folder=folder)
    assert seen.status == 200
    made = cortex.client(
        "POST", "/admin/models", {**LLAMA, "engine_type": engine, "local_path": f"broken/{folder}"}
    )
    if made.status == 200:
        dry = cortex.client.dry_run(made.body["id"])
        assert dry["valid"] is False, dry
        assert cortex.client.do(made.body["id"], "start").status in (400, 409)
    else:
        assert made.status == 400, made.body
    assert cortex.server.engines() == []
