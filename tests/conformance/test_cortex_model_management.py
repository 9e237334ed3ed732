"""Cortex's page "Model Management" (shared/seeds/cortex-model-management.md), read in its order.

Each test's docstring is the statement that it holds Ostler to. What needs containers runs on a real Docker
Engine with the real llama-server inside (`make test-real`); the rest on processes with the built-in one.

Not here, as they are the web console's: toasts on transitions, the "System Monitor" page. What they draw from
is tested: every transition is told as an event, and `GET /admin/models/metrics` answers.
"""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cortex_house import CortexHouse, after
from tests.real.docker_engine import EMPTY_IMAGE, LLAMA_IMAGE, DockerEngine, llama_server, with_libraries
from tests.real.image_registry import Registry, serving
from tests.real.test_docker_contract import PYTHON

pytestmark = pytest.mark.real
CHECKOUT = Path(__file__).parents[2]
STAND_IN = f"/py/bin/python{sys.version_info[0]}.{sys.version_info[1]} -S -E /stand_in.py"


# Concepts


def test_records_are_stored(cortex: CortexHouse) -> None:
    """Stored model records in DB (name, served name, task, flags)."""
    flags = {"enforce_eager": True, "tp_size": 2, "max_model_len": 4096, "enable_prefix_caching": False}
    body = {"mode": "offline", "local_path": "hf", "engine_type": "vllm", "task": "embed"}
    number = cortex.client.create(**body, name="Qwen three", served_model_name="qwen3", **flags)
    before = cortex.client.models()[number]
    cortex.server.kill()
    cortex.start()
    after_restart = cortex.client.models()[number]
    assert after_restart == before
    assert (before["name"], before["served_model_name"], before["task"]) == ("Qwen three", "qwen3", "embed")
    assert {name: before[name] for name in flags} == flags


def test_llama_containers_have_their_models_number(
    in_containers: CortexHouse, docker_engine: DockerEngine
) -> None:
    """Managed containers named `vllm-model-{id}` or `llamacpp-model-{id}`: llama.cpp's."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    assert docker_engine.containers() == [f"llamacpp-model-{number}"]
    assert in_containers.client.models()[number]["container_name"] == f"llamacpp-model-{number}"


@pytest.mark.timeout(900)
def test_vllm_containers_have_their_models_number(
    in_containers: CortexHouse, docker_engine: DockerEngine, vllm: Path, shared: Path
) -> None:
    """Managed containers named `vllm-model-{id}` or `llamacpp-model-{id}`: vLLM's, the real one inside."""
    folder = in_containers.models_dir / "small"
    shutil.copytree(shared / "demo-model" / "hf", folder, dirs_exist_ok=True)
    in_containers.untouched()
    number = in_containers.create_vllm("small")
    python = (vllm / "bin" / "python").resolve()
    mounts = [f"{place}:{place}" for place in (vllm, python.parents[1], "/usr", "/lib", "/lib64", "/bin")]
    changes = {
        "engine_command": f"{vllm}/bin/python -m vllm.entrypoints.openai.api_server",
        "runtime_options": {"image": EMPTY_IMAGE, "mounts": mounts},
        "env": {"HOME": "/tmp", "PATH": "/usr/bin:/bin"},
    }
    in_containers.server.ask("/ostler/v1/models/small", changes, method="PATCH")
    in_containers.client.run(number, patience_s=600)
    assert docker_engine.containers() == [f"vllm-model-{number}"]
    assert in_containers.told("small") == ["starting", "loading", "running"]
    assert in_containers.client.chat("small").body["choices"][0]["message"]["content"]
    mounted = docker_engine.inspect(f"vllm-model-{number}")
    assert mounted["HostConfig"]["ShmSize"] == 2 * 2**30
    assert "HF_HUB_OFFLINE=1" in mounted["Config"]["Env"]
    (item,) = in_containers.client.get("/admin/models/metrics")
    assert_numbers(item)
    in_containers.client.stop(number)
    assert docker_engine.containers() == []


def test_the_registry_leads_names_to_engines(cortex: CortexHouse) -> None:
    """Registry maps served name → URL and task for routing."""
    number = cortex.create("demo")
    assert cortex.client.registry() == {}
    cortex.client.run(number)
    entry = cortex.client.registry()["demo"]
    assert entry["url"] == cortex.instance("demo")["url"]
    assert (entry["task"], entry["engine_type"]) == ("generate", "llamacpp")
    assert cortex.client.chat("demo").status == 200
    cortex.client.stop(number)
    assert cortex.client.registry() == {}


def test_files_are_never_deleted(cortex: CortexHouse) -> None:
    """Model files are never deleted by Cortex - only database records are removed."""
    number = cortex.create("demo")
    gone = cortex.client.delete(number)
    assert gone.body["status"] == "deleted"
    assert gone.body["files_preserved"] is True
    assert number not in cortex.client.models()
    cortex.assert_untouched()


# Lifecycle


def test_a_whole_life(cortex: CortexHouse) -> None:
    """Create → Start → Apply updates (stop/start) → Stop → Archive/Delete (DB only)."""
    number = cortex.create("demo")
    assert cortex.client.state(number) == "stopped"
    cortex.client.run(number)
    first = cortex.instance("demo")
    assert cortex.client.change(number, context_size=1024).body == {"status": "ok"}
    assert cortex.instance("demo")["id"] == first["id"], "a change waits for Apply"
    applied = cortex.client.do(number, "apply")
    assert (applied.status, applied.body["status"]) == (200, "applied"), applied.body
    cortex.client.until(number, lambda _: cortex.told("demo").count("running") == 2)
    assert cortex.instance("demo")["id"] != first["id"]
    cortex.client.stop(number)
    assert cortex.client.state(number) == "stopped"
    assert cortex.client.do(number, "archive").body == {"status": "archived"}
    assert cortex.client.models()[number]["archived"] is True
    assert cortex.client.delete(number).status == 200
    assert cortex.client.models() == {}
    cortex.assert_untouched()


# State machine, each edge on a real container


def test_the_way_up_and_the_way_down(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """stopped - Start Click → starting - Container Up → loading → running - Stop → stopping → stopped."""
    number = in_containers.create("demo")
    assert in_containers.client.state(number) == "stopped"
    in_containers.client.run(number)
    assert in_containers.told("demo") == ["starting", "loading", "running"]
    in_containers.client.stop(number)
    assert in_containers.client.state(number) == "stopped"
    assert in_containers.told("demo") == ["starting", "loading", "running", "stopping", "stopped"]
    assert docker_engine.containers() == []


def test_an_error_before_the_start(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Error at any stage → failed: an image that is not here is found before there is anything that fails."""
    number = in_containers.create("demo", engine_image="ghcr.io/nobody/nothing:1")
    refused = in_containers.client.do(number, "start")
    assert refused.status == 503, refused.body
    assert "ghcr.io/nobody/nothing:1" in refused.body["error"]["detail_text"]
    assert "docker load" in str(refused.body["error"])
    assert docker_engine.containers() == []


def test_an_error_while_starting(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Error at any stage → failed: the container cannot be made, as its name is somebody else's."""
    number = in_containers.create("demo")
    name = f"llamacpp-model-{number}"
    docker_engine.docker("create", "--name", name, LLAMA_IMAGE)
    in_containers.client.do(number, "start")
    assert in_containers.client.until_state(number, "running", "failed", "stopped") == "failed"
    assert name in in_containers.client.models()[number]["state_reason"]
    assert in_containers.told("demo") == ["starting", "failed"]
    docker_engine.docker("rm", name)
    in_containers.client.run(number)


def test_an_error_while_loading(in_containers: CortexHouse) -> None:
    """Error at any stage → failed: the engine ends while it loads; a start from there goes up again."""
    number = in_containers.create(
        "demo", engine_startup_args_json=[{"flag": "--no-such-flag", "type": "flag"}]
    )
    in_containers.client.do(number, "start")
    assert in_containers.client.until_state(number, "running", "failed") == "failed"
    assert in_containers.told("demo") == ["starting", "loading", "failed"]
    assert in_containers.client.change(number, engine_startup_args_json=[]).status == 200
    in_containers.client.run(number)
    assert in_containers.told("demo")[3:] == ["starting", "loading", "running"]


def test_an_error_while_running(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Error at any stage → failed: the engine dies; a stop from there ends in stopped."""
    number = in_containers.create("demo")
    never_again = {"policy": {"restart_limit": 0}}
    in_containers.server.ask("/ostler/v1/models/demo", never_again, method="PATCH")
    in_containers.client.run(number)
    docker_engine.docker("kill", f"llamacpp-model-{number}")
    in_containers.client.until_state(number, "failed")
    assert "demo" not in in_containers.client.registry()
    in_containers.client.stop(number)
    assert in_containers.client.state(number) == "stopped"
    assert in_containers.told("demo") == ["starting", "loading", "running", "failed", "stopped"]


def test_a_stop_while_the_daemon_is_away(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Error at any stage: a stop while the daemon is away goes on, and is never called stopped before it is.

    Nothing is known to have failed, so it stays `stopping` (docs/design/012) until the daemon is back.
    """
    number = in_containers.create("demo")
    in_containers.client.run(number)
    docker_engine.stop(9)
    try:
        refused = in_containers.client.do(number, "stop")
        assert refused.status >= 500, refused.body
        assert in_containers.client.state(number) == "stopping"
    finally:
        docker_engine.start()
    in_containers.client.until_state(number, "stopped")
    assert docker_engine.containers() == []


def test_an_error_while_stopping(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Error at any stage → failed: the daemon refuses to take the container away; a stop from there stops."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    with docker_engine.refusing_to_remove(f"llamacpp-model-{number}"):
        refused = in_containers.client.do(number, "stop")
        assert refused.status >= 500, refused.body
        assert in_containers.client.state(number) == "failed"
        assert "refused" in in_containers.client.models()[number]["state_reason"]
        assert docker_engine.containers() == [f"llamacpp-model-{number}"]
    in_containers.client.stop(number)
    assert in_containers.told("demo")[2:] == ["running", "stopping", "failed", "stopped"]
    assert docker_engine.containers() == []


# States


def test_stopped(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """`stopped`: No container running, ready to start."""
    number = in_containers.create("demo")
    assert in_containers.client.state(number) == "stopped"
    assert docker_engine.containers() == []
    in_containers.client.run(number)


def slow(house: CortexHouse, *manners: str) -> int:
    """A model in a container whose engine is the stand-in, which has manners that llama-server has not."""
    number = house.create("demo")
    changes = {
        "engine_command": " ".join([STAND_IN, *manners]),
        "runtime_options": PYTHON,
        "env": {"LD_LIBRARY_PATH": "/py/lib"},
    }
    house.server.ask("/ostler/v1/models/demo", changes, method="PATCH")
    return number


def test_starting(online_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """`starting`: Container creation initiated. Its image is on its way; a stop ends it from here, too."""
    server = llama_server()
    assert server is not None
    with serving(Registry(with_libraries(server), ["/llama-server"])) as registry:
        number = online_containers.create("demo", engine_image=registry.image)
        registry.gate.clear()
        online_containers.client.do(number, "start")
        assert online_containers.client.state(number) == "starting"
        assert docker_engine.containers() == []
        online_containers.client.stop(number)
        registry.gate.set()
        online_containers.client.run(number)
        online_containers.client.stop(number)
    docker_engine.docker("rmi", "--force", registry.image)


def test_loading(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """`loading`: Container running, model loading into GPU memory. A stop ends it from here, too."""
    number = slow(in_containers, "--load-s", "-1")
    in_containers.client.do(number, "start")
    in_containers.client.until_state(number, "loading")
    assert docker_engine.containers("--filter", "status=running") == [f"llamacpp-model-{number}"]
    assert in_containers.client.get(f"/admin/models/{number}/readiness")["status"] == "loading"
    in_containers.client.stop(number)
    assert in_containers.told("demo") == ["starting", "loading", "stopping", "stopped"]


def test_running(in_containers: CortexHouse) -> None:
    """`running`: Model ready for inference requests."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    assert in_containers.client.get(f"/admin/models/{number}/readiness")["status"] == "ready"
    assert in_containers.client.chat("demo").body["choices"][0]["message"]["content"]
    tested = in_containers.client.do(number, "test").body
    assert (tested["success"], tested["test_type"], tested["error"]) == (True, "chat", None)


@pytest.mark.timeout(600)
def test_running_without_a_chat_template(with_both: CortexHouse) -> None:
    """`running`: Model ready for inference requests; one that cannot chat is tried out by completions."""
    plain = with_both.models_dir / "plain"
    shutil.copytree(with_both.models_dir / "small", plain)
    for file in (*plain.glob("chat_template*"), plain / "tokenizer_config.json"):
        text = json.loads(file.read_text()) if file.suffix == ".json" else {}
        file.unlink()
        if text.pop("chat_template", None) or file.name == "tokenizer_config.json":
            (plain / "tokenizer_config.json").write_text(json.dumps(text))
    with_both.untouched()
    number = with_both.create_vllm("plain", local_path="plain")
    with_both.client.run(number, patience_s=300)
    assert with_both.client.chat("plain").body["error"]["code"] == "chat_template_missing"
    tested = with_both.client.do(number, "test").body
    assert (tested["success"], tested["test_type"], tested["error"]) == (True, "chat", None)
    assert tested["request"]["prompt"] == "Hello" and tested["response"]["choices"][0]["text"]


def test_stopping(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """`stopping`: Graceful shutdown in progress."""
    number = slow(in_containers, "--ignore-term")
    in_containers.client.run(number)
    with ThreadPoolExecutor(1) as others:
        stop = others.submit(in_containers.client.do, number, "stop")
        in_containers.client.until_state(number, "stopping")
        assert docker_engine.containers() == [f"llamacpp-model-{number}"]
        assert stop.result().body == {"status": "stopped"}
    assert docker_engine.containers() == []


def test_failed(in_containers: CortexHouse) -> None:
    """`failed`: Error occurred, check logs for diagnostics."""
    number = in_containers.create(
        "demo", engine_startup_args_json=[{"flag": "--no-such-flag", "type": "flag"}]
    )
    in_containers.client.do(number, "start")
    in_containers.client.until_state(number, "failed")
    found = in_containers.client.diagnosed(number)
    assert "--no-such-flag" in found["logs"]
    assert (found["state"], found["diagnosis"]["detected"]) == ("failed", True)
    assert found["diagnosis"]["fixes"]


# UI behavior


def test_polling_is_enough(cortex: CortexHouse) -> None:
    """Polling automatically updates state every few seconds: nobody has to ask for readiness."""
    number = cortex.create("demo")
    cortex.client.do(number, "start")
    assert cortex.client.until_state(number, "running", "failed") == "running"
    (engine,) = cortex.server.engines()
    engine.kill()
    cortex.client.until(number, lambda state: state != "running")
    cortex.client.until_state(number, "running")
    assert cortex.told("demo")[3:] == ["failed", "restarting", "starting", "loading", "running"]


def test_start_tries_dry_first(cortex: CortexHouse) -> None:
    """ "Start" button triggers dry-run validation first: what it finds wrong starts nothing."""
    number = cortex.create("demo", engine_startup_args_json=[{"flag": "--no-such-flag", "type": "flag"}])
    dry = cortex.client.dry_run(number)
    assert dry["valid"] is False
    refused = cortex.client.do(number, "start")
    assert refused.status == 409, refused.body
    assert "--no-such-flag" in str(refused.body)
    assert cortex.client.state(number) == "stopped"
    assert cortex.server.engines() == []


# File safety guarantee


def test_deleting_a_running_model(cortex: CortexHouse) -> None:
    """Delete: record is removed, container is stopped, unregistered from routing, files remain untouched."""
    number = cortex.create("demo")
    cortex.client.run(number)
    assert cortex.client.delete(number).status == 200
    assert cortex.client.models() == {}
    assert cortex.server.engines() == []
    assert cortex.client.registry() == {}
    assert cortex.client.chat("demo").status == 404
    cortex.assert_untouched()


def test_deleting_ends_the_container(in_containers: CortexHouse, docker_engine: DockerEngine) -> None:
    """Delete: container is stopped, and it saw the files read-only."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    mounts = docker_engine.inspect(f"llamacpp-model-{number}")["Mounts"]
    assert [mount["RW"] for mount in mounts if mount["Type"] == "bind"] == [False]
    in_containers.client.delete(number)
    assert docker_engine.containers() == []
    in_containers.assert_untouched()


def test_files_placed_by_hand_need_no_network(cortex: CortexHouse) -> None:
    """This protects manually-placed offline models: they are found, served and kept without any network."""
    assert "demo2" in cortex.client.get("/admin/models/local-folders")
    number = cortex.create("by-hand", local_path="demo2/other-Q8_0.gguf")
    cortex.client.run(number)
    assert cortex.client.chat("by-hand").status == 200


def test_only_people_free_disk_space(cortex: CortexHouse) -> None:
    """To free disk space administrators must manually delete files: the record stays, and says so."""
    number = cortex.create("old", local_path="old-model-folder/old-Q8_0.gguf")
    folder = cortex.models_dir / "old-model-folder"
    kept = cortex.models_dir.parent / "kept"
    shutil.copytree(folder, kept)
    shutil.rmtree(folder)
    cortex.untouched()
    assert "old-model-folder" not in cortex.client.get("/admin/models/local-folders")
    refused = cortex.client.do(number, "start")
    assert (refused.status, refused.word) == (400, "local_path_not_found"), refused.body
    assert "old-Q8_0.gguf" in str(refused.body)
    assert cortex.client.models()[number]["local_path"] == "old-model-folder/old-Q8_0.gguf"
    shutil.copytree(kept, folder)
    cortex.untouched()


# Base directory helpers


def test_the_base_folder_is_read_and_set(cortex: CortexHouse) -> None:
    """`GET/PUT /admin/models/base-dir` to set host-visible models directory."""
    own = {"base_dir": str(cortex.models_dir)}
    assert cortex.client.get("/admin/models/base-dir") == own
    deeper = {"base_dir": str(cortex.models_dir / "demo")}
    assert cortex.client.good("PUT", "/admin/models/base-dir", deeper) == deeper
    assert cortex.client.get("/admin/models/base-dir") == deeper
    assert cortex.client.good("PUT", "/admin/models/base-dir", own) == own


def test_offline_models_are_chosen_from_folders(cortex: CortexHouse) -> None:
    """`local-folders` and `inspect-folder` assist offline model selection: what they show can be served."""
    base = cortex.client.get("/admin/models/base-dir")["base_dir"]
    folders = cortex.client.get("/admin/models/local-folders", base=base)
    assert folders == sorted(path.name for path in cortex.models_dir.iterdir() if path.is_dir())
    found = cortex.client.get("/admin/models/inspect-folder", base=base, folder="demo")
    assert found["engine_recommendation"]["recommended"] == "llamacpp"
    (group,) = found["gguf_groups"]
    assert (group["quant_type"], group["can_use"]) == ("Q8_0", True)
    number = cortex.create("chosen", local_path=group["local_path"])
    cortex.client.run(number)
    vllm = cortex.client.get("/admin/models/inspect-folder", base=base, folder="hf")
    assert vllm["engine_recommendation"]["recommended"] == "vllm"


# Model preparation


@pytest.mark.parametrize(
    ("page", "word"),
    [("guide.md", "ostler pull"), ("engines/llamacpp.md", "gpu_layers"), ("engines/vllm.md", "dtype")],
)
def test_there_is_a_page_for_each_way_to_prepare_models(page: str, word: str) -> None:
    """HuggingFace, GGUF and vLLM models: a guide for each (ours: guide.md, and a page by engine)."""
    assert word in (CHECKOUT / "docs" / page).read_text()


# Logs


def test_recent_lines_of_the_log(cortex: CortexHouse) -> None:
    """`GET /admin/models/{id}/logs` returns recent container logs (for debugging)."""
    number = cortex.create("demo")
    cortex.client.run(number)
    text = cortex.client.log(number)
    assert "demo-Q8_0.gguf" in text
    assert len(text.splitlines()) <= 1000
    cortex.client.stop(number)
    assert cortex.client.log(number).startswith(text.splitlines()[0])


def test_the_log_with_its_diagnosis(cortex: CortexHouse) -> None:
    """`GET /admin/models/{id}/logs?diagnose=true` returns logs with startup diagnostics."""
    number = cortex.create("demo")
    cortex.client.run(number)
    found = cortex.client.diagnosed(number)
    assert set(found) >= {"logs", "diagnosis", "summary", "state"}
    assert found["state"] == "running"
    assert not (found["diagnosis"] or {}).get("detected"), "nothing is wrong with it"


def test_logs_of_a_container(in_containers: CortexHouse) -> None:
    """`GET /admin/models/{id}/logs` returns recent container logs: also after the container is gone."""
    number = in_containers.create("demo")
    in_containers.client.run(number)
    assert "listening" in in_containers.client.log(number)
    in_containers.client.stop(number)
    assert "listening" in in_containers.client.log(number)


# Dry run and pre-start validation


def test_a_dry_run_shows_the_command_of_llama_cpp(cortex: CortexHouse) -> None:
    """Returns the vLLM or llama.cpp command that would be executed: the very one, secrets hidden."""
    number = cortex.create("demo", hf_token="hf_secret_token")
    dry = cortex.client.dry_run(number)
    assert dry["valid"] is True, dry
    assert after("--ctx-size", dry["command"]) == "512"
    assert all(word in dry["command_str"] for word in ("demo-Q8_0.gguf", "--alias"))
    assert "hf_secret_token" not in str(dry)
    assert cortex.server.engines() == []
    assert cortex.client.state(number) == "stopped"


@pytest.mark.timeout(300)
def test_a_dry_run_shows_the_command_of_vllm(with_both: CortexHouse) -> None:
    """Returns the vLLM or llama.cpp command that would be executed: vLLM's."""
    number = with_both.create_vllm("small")
    dry = with_both.client.dry_run(number)
    assert dry["valid"] is True, dry
    assert after("--max-model-len", dry["command"]) == "256"
    assert after("--served-model-name", dry["command"]) == "small"


def test_a_dry_run_estimates_memory(cortex: CortexHouse) -> None:
    """VRAM estimation and warnings: it follows what is set."""
    short, long = cortex.create("short"), cortex.create("long", context_size=65536)
    first, second = (cortex.client.dry_run(number)["vram_estimate"] for number in (short, long))
    parts = {"model_weights_gb", "kv_cache_gb", "overhead_gb", "total_per_gpu_gb", "required_vram_gb"}
    assert parts <= set(first)
    assert second["kv_cache_gb"] > first["kv_cache_gb"]


def test_a_dry_run_warns_where_memory_is_short(small_gpu: CortexHouse) -> None:
    """VRAM estimation and warnings: what does not fit is an error that names the GPU."""
    number = small_gpu.create("demo", context_size=4_000_000, ngl=99)
    dry = small_gpu.client.dry_run(number)
    found = [warning for warning in dry["warnings"] if warning["category"] == "memory"]
    assert "error" in {warning["severity"] for warning in found}, dry
    assert "GPU 0" in str(found)
    assert dry["valid"] is False
    assert small_gpu.client.do(number, "start").status == 409


def test_a_dry_run_validates_the_configuration(cortex: CortexHouse) -> None:
    """Configuration validation results: each with severity, category, title, message and fix."""
    number = cortex.create(
        "demo", engine_startup_args_json=[{"flag": "--ctx-sise", "type": "int", "value": 5}]
    )
    dry = cortex.client.dry_run(number)
    assert dry["valid"] is False
    (found,) = [warning for warning in dry["warnings"] if "--ctx-sise" in str(warning)]
    assert set(found) == {"severity", "category", "title", "message", "fix"}
    assert (found["severity"], found["category"]) == ("error", "args")
    assert "--ctx-size" in str(found)


def test_a_dry_run_checks_quantization(cortex: CortexHouse) -> None:
    """Quantization compatibility checks: AWQ asked of weights that are not AWQ."""
    body = {"mode": "offline", "local_path": "hf", "engine_type": "vllm", "quantization": "awq"}
    number = cortex.client.create(**body, name="q", served_model_name="q")
    dry = cortex.client.dry_run(number)
    assert any("awq" in str(warning).lower() for warning in dry["warnings"]), dry


def test_warnings_are_there_to_be_asked_about(cortex: CortexHouse) -> None:
    """If warnings are detected, the user is prompted to confirm before proceeding.

    Cortex's page asks for a dry run and starts when the user has said yes: so warnings are in the dry run,
    and come again with the start, which they do not stop. Who wants to be asked says confirm=false.
    """
    number = cortex.create("demo", threads=999)
    dry = cortex.client.dry_run(number)
    warnings = [warning for warning in dry["warnings"] if warning["severity"] == "warning"]
    assert dry["valid"] is True
    assert warnings, dry
    asked = cortex.client.do(number, "start", confirm="false")
    assert asked.status == 409 and "confirm=true" in asked.body["error"]["hint"]
    assert warnings[0]["title"] in [found["title"] for found in asked.body["error"]["facts"]["findings"]]
    assert cortex.client.state(number) == "stopped"
    started = cortex.client.do(number, "start", confirm="true")
    assert started.status == 200
    assert warnings[0]["title"] in [warning["title"] for warning in started.body["warnings"]]
    cortex.client.until_state(number, "running")


# Per-model metrics


def test_running_models_have_numbers(cortex: CortexHouse) -> None:
    """Requests running/waiting/swapped, prompt/generation tokens, KV cache utilization, GPU cache usage."""
    number = cortex.create("demo")
    cortex.client.run(number)
    assert cortex.client.chat("demo").status == 200
    (item,) = cortex.client.get("/admin/models/metrics")
    assert_numbers(item)
    assert (item["model_id"], item["served_name"], item["engine_type"]) == (number, "demo", "llamacpp")
    cortex.client.stop(number)
    assert cortex.client.get("/admin/models/metrics") == []


def assert_numbers(item: dict[str, Any]) -> None:
    """What the page asks for is there, and counts."""
    assert (item["status"], item["error"]) == ("running", None)
    assert item["num_requests_running"] == item["num_requests_waiting"] == 0
    assert item["prompt_tokens_total"] > 0
    assert item["generation_tokens_total"] > 0
    assert {"num_requests_swapped", "gpu_cache_usage_pct", "cpu_cache_usage_pct"} <= set(item)


def test_containers_have_numbers(in_containers: CortexHouse) -> None:
    """Running models expose metrics: those in containers too, whatever network the server is on."""
    in_containers.client.run(in_containers.create("demo"))
    assert in_containers.client.chat("demo").status == 200
    (item,) = in_containers.client.get("/admin/models/metrics")
    assert_numbers(item)
