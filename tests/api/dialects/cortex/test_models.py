"""Models by Cortex's API: made, refused, run, asked, and deleted; their files stay as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ostler.core.principals import LOCAL_ADMIN, Role
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.cortex.shapes import envelope
from tests.library.gguf_files import write_safetensors

MODELS = "//admin/models"
BODY = {
    "mode": "offline",
    "engine_type": "llamacpp",
    "local_path": "tiny-Q8_0.gguf",
    "served_model_name": "tiny",
    "name": "Tiny",
    "context_size": 512,
    "parallel_slots": 1,
}


@pytest.fixture
async def api(make_api: MakeApi) -> Api:
    """An Ostler that runs Cortex's models as processes."""
    return await make_api(cortex_runtime="process")


def fingerprints(api: Api) -> dict[str, tuple[int, int, int]]:
    files = sorted((api.data_dir / "models").rglob("*"))
    return {str(p): (p.stat().st_mode, p.stat().st_size, p.stat().st_mtime_ns) for p in files}


async def made(api: Api, **more: Any) -> str:
    answer = await api.post(MODELS, {**BODY, **more})
    assert answer.status_code == 200, answer.text
    return f"{MODELS}/{answer.json()['id']}"


async def running(api: Api, model: str) -> None:
    """Started, and waited for as its keeper says."""
    answer = await api.post(f"{model}/start")
    assert answer.status_code == 200, answer.text
    await api.services.instances.start(int(model.rpartition("/")[2]), LOCAL_ADMIN)


async def test_a_model_is_made_started_asked_stopped_and_deleted(api: Api, model_file: Path) -> None:
    before = fingerprints(api)
    model = await made(api)
    assert (await api.get(model)).json()["state"] == "stopped"
    assert (await api.get(f"{model}/readiness")).json() == {"status": "stopped", "detail": "stopped"}
    envelope(await api.post(f"{model}/test"), 400, "model_not_running")
    started = (await api.post(f"{model}/start")).json()
    assert started["status"] in ("starting", "loading", "running")  # what it is, never more
    assert started.keys() == {"status", "container", "port", "warnings"}
    assert (await api.get(f"{model}/readiness")).json()["status"] in ("loading", "ready")
    await running(api, model)
    shown = (await api.get(model)).json()
    assert shown["state"] == "running" and shown["port"] > 0 and shown["container_name"] is None
    assert (await api.get(f"{model}/readiness")).json()["status"] == "ready"
    test = (await api.post(f"{model}/test")).json()
    assert test["success"] and test["test_type"] == "chat" and test["error"] is None, test
    assert test["response"]["choices"] and test["request"]["messages"] and test["latency_ms"] >= 0
    log = await api.get(f"{model}/logs")
    assert isinstance(log.json(), str) and log.json()
    told = (await api.get(f"{model}/logs", diagnose="true")).json()
    assert told.keys() >= {"logs", "diagnosis", "summary", "state"} and told["state"] == "running"
    assert (await api.post(f"{model}/stop")).json() == {"status": "stopped"}
    assert (await api.post(f"{model}/stop")).json() == {"status": "stopped"}
    await api.post(f"//admin/recipes/from-model/{model.rpartition('/')[2]}", {"name": "kept"})
    deleted = (await api("DELETE", model)).json()
    assert (deleted["status"], deleted["files_preserved"], deleted["recipes_deleted"]) == ("deleted", True, 1)
    envelope(await api.get(model), 404, "not_found")
    assert (await api.get("//admin/recipes")).json() == [] and fingerprints(api) == before


async def test_a_model_that_runs_is_stopped_before_it_is_deleted(api: Api, model_file: Path) -> None:
    model = await made(api)
    await running(api, model)
    assert (await api("DELETE", model)).json()["status"] == "deleted"
    assert api.services.instances.views() == [] and model_file.exists()


async def test_a_request_does_not_start_a_stopped_model(api: Api, model_file: Path) -> None:
    await made(api)
    assert api.services.models.get("tiny").policy.on_demand is False


async def test_apply_starts_anew_with_what_was_changed(api: Api, model_file: Path) -> None:
    model = await made(api)
    await running(api, model)
    first = api.services.instances.view(1).id
    assert (await api("PATCH", model, {"context_size": 256})).json() == {"status": "ok"}
    applied = (await api.post(f"{model}/apply")).json()
    assert applied["status"] == "applied" and applied["port"] is None  # that of the next is not known yet
    assert applied["state"] == "stopping"
    assert (await api.get(model)).json()["state"] in ("stopping", "starting")
    view = await api.services.instances.start(1, LOCAL_ADMIN)
    assert view.id != first and not view.drift and view.state.value == "running"


async def test_apply_starts_a_stopped_model_too(api: Api, model_file: Path) -> None:
    model = await made(api)
    assert (await api.post(f"{model}/apply")).json()["status"] == "applied"
    assert (await api.services.instances.start(1, LOCAL_ADMIN)).state.value == "running"
    before = (await api.get(model)).json()["port"]
    await api.post(f"{model}/stop")
    again = (await api.post(f"{model}/apply")).json()
    assert (again["state"], again["port"]) == ("starting", None), f"nothing is at {before} any more"
    assert (await api.get(model)).json()["port"] != before


async def test_where_a_model_runs_is_said_by_its_body_or_by_what_is_here(
    make_api: MakeApi, demo_model: Path
) -> None:
    api = await make_api(cortex_runtime="auto", docker_host="unix:///nowhere.sock")
    shutil.copy(demo_model, api.data_dir / "models" / "tiny-Q8_0.gguf")
    bodies: tuple[dict[str, str], ...] = ({}, {"runtime": "docker"}, {"runtime": "process"})
    for number, body in enumerate(bodies):
        answer = await api.post(MODELS, {**BODY, "served_model_name": f"m{number}", **body})
        assert answer.status_code == 200, answer.text
    told = [(item["id"], item["runtime"]) for item in (await api.get(MODELS)).json()]
    assert told == [(1, "process"), (2, "docker"), (3, "process")], "no daemon answers here"
    assert (await api("PATCH", f"{MODELS}/1", {"runtime": "docker"})).status_code == 200
    assert (await api.get(f"{MODELS}/1")).json()["runtime"] == "docker"
    assert (await api.post(MODELS, {**BODY, "runtime": "moon"})).status_code == 422


async def test_two_starts_are_one(api: Api, model_file: Path) -> None:
    model = await made(api)
    first, second = [await api.post(f"{model}/start") for _ in range(2)]
    assert first.status_code == second.status_code == 200
    await running(api, model)
    assert len(api.services.instances.views()) == 1


async def test_archived_models_stay_in_the_list_and_do_not_start(api: Api, model_file: Path) -> None:
    model = await made(api)
    assert (await api.post(f"{model}/archive")).json() == {"status": "archived"}
    assert [item["archived"] for item in (await api.get(MODELS)).json()] == [True]
    envelope(await api.post(f"{model}/start"), 409)
    assert (await api.post(f"{model}/unarchive")).json() == {"status": "unarchived"}
    await api.post(f"{model}/archive")
    assert (await api("PATCH", model, {"archived": False})).status_code == 200
    assert (await api.get(model)).json()["archived"] is False


async def test_a_dry_run_says_what_would_run(api: Api, model_file: Path) -> None:
    model = await made(api, ngl=0, hf_token="hf_very_secret")
    answer = await api.post(f"{model}/dry-run")
    told = answer.json()
    assert told["valid"] is True and "--alias" in told["command"] and "hf_very_secret" not in answer.text
    assert "tiny" in told["command_str"] and "--api-key" not in told["command_str"]
    assert told["vram_estimate"]["model_weights_gb"] >= 0 and told["vram_estimate"]["context_size"] == 512
    unsaved = (await api.post(f"{MODELS}/dry-run", {**BODY, "threads": 4000})).json()
    assert "More threads than cores" in [warning["title"] for warning in unsaved["warnings"]]
    assert len((await api.get(MODELS)).json()) == 1
    envelope(await api.post(f"{MODELS}/99/dry-run"), 404, "not_found")


async def test_warnings_come_with_the_start_and_errors_keep_it_from_starting(
    api: Api, model_file: Path
) -> None:
    model = await made(api, threads=4000)
    asked = envelope(await api("POST", f"{model}/start", params={"confirm": "false"}), 409)
    assert [found["code"] for found in asked["facts"]["findings"]] == ["more_threads_than_cores"]
    assert (await api.get(model)).json()["state"] == "stopped"
    assert (await api("POST", f"{model}/apply", params={"confirm": "false"})).status_code == 409
    started = (await api.post(f"{model}/start")).json()
    assert "more_threads_than_cores" in [warning["code"] for warning in started["warnings"]]
    await api.post(f"{model}/stop")
    await api("PATCH", model, {"cache_type_v": "q8_0", "flash_attention": False})
    told = (await api.post(f"{model}/dry-run")).json()
    assert told["valid"] is False
    refused = envelope(await api.post(f"{model}/start"), 409)
    assert refused["facts"]["findings"][0]["code"] == "v_cache_needs_flash_attention"
    assert (await api.get(model)).json()["state"] == "stopped"
    assert (await api("POST", f"{model}/start", params={"override": "true"})).status_code == 200


async def test_files_that_are_gone_are_said_to_be(api: Api, model_file: Path) -> None:
    model = await made(api)
    model_file.rename(model_file.with_name("moved.gguf"))
    told = (await api.post(f"{model}/dry-run")).json()
    assert told["valid"] is False and told["command"] == [] and "gone" in told["warnings"][0]["message"]
    envelope(await api.post(f"{model}/start"), 400, "local_path_not_found")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"mode": "sideways"}, "invalid_mode"),
        ({"mode": "online", "engine_type": "vllm", "repo_id": ""}, "repo_id_required"),
        ({"engine_type": "vllm", "local_path": None}, "local_path_required"),
        ({"mode": "online", "repo_id": "org/name"}, "llamacpp requires offline mode"),
        ({"local_path": ""}, "llamacpp requires local_path"),
        ({"local_path": "nothing.gguf"}, "llamacpp requires a GGUF file"),
        ({"local_path": "empty"}, "llamacpp requires a GGUF file"),
        ({"local_path": "tensors"}, "llamacpp requires a GGUF file"),
        ({"engine_type": "vllm", "local_path": "nothing"}, "local_path_not_found"),
        ({"engine_type": "vllm"}, "gguf_requires_llamacpp"),
        ({"engine_type": "ollama"}, "unknown_engine_type"),
        ({"local_path": "../tiny-Q8_0.gguf"}, "path_not_allowed"),
        ({"local_path": "sub/../../tiny-Q8_0.gguf"}, "path_not_allowed"),
        ({"local_path": "/etc/passwd"}, "path_not_allowed"),
        ({"grammar_file": "../../etc/passwd"}, "path_not_allowed"),
        ({"local_path": "cut-Q8_0.gguf"}, "invalid_model_file"),
        ({"engine_startup_args_json": '[{"flag": "--port", "value": 1}]'}, "forbidden_argument"),
        ({"engine_startup_args_json": '[{"flag": "--host=0.0.0.0", "type": "flag"}]'}, "forbidden_argument"),
        (
            {"engine_startup_env_json": '[{"key": "CUDA_VISIBLE_DEVICES", "value": "0"}]'},
            "protected_variable",
        ),
    ],
)
async def test_what_cannot_be_is_refused_with_cortexs_word(
    api: Api, model_file: Path, body: dict[str, Any], word: str
) -> None:
    models_dir = model_file.parent
    (models_dir / "empty").mkdir()
    (models_dir / "cut-Q8_0.gguf").write_bytes(model_file.read_bytes()[:100_000])
    write_safetensors(models_dir / "tensors" / "model.safetensors", {"a": ("BF16", (8, 8))})
    (models_dir / "tensors" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    envelope(await api.post(MODELS, {**BODY, **body}), 400, word)
    assert (await api.get(MODELS)).json() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"context_size": "many"}, "context_size"),
        ({"context_size": -5}, "context_size"),
        ({"cache_type_k": "q9"}, "cache_type_k"),
        ({"custom_request_json": "{broken"}, "custom_request_json"),
        ({"custom_request_json": '{"messages": []}'}, "custom_request_json"),
        ({"engine_startup_args_json": "{}"}, "engine_startup_args_json"),
        ({"served_model_name": "blank behind "}, "served_model_name"),
        ({"served_model_name": "", "name": ""}, "served_model_name"),
        ({"engine_image": "../x"}, "engine_image"),
    ],
)
async def test_a_wrong_value_names_its_field(
    api: Api, model_file: Path, body: dict[str, Any], field: str
) -> None:
    answer = await api.post(MODELS, {**BODY, **body})
    assert answer.status_code == 422, answer.text
    assert ".".join(answer.json()["detail"][0]["loc"][1:]) == field


async def test_served_names_are_unique(api: Api, model_file: Path) -> None:
    model = await made(api)
    envelope(await api.post(MODELS, BODY), 409)
    other = await made(api, served_model_name="org/tiny:Q8_0")
    envelope(await api("PATCH", other, {"served_model_name": "tiny"}), 409)
    assert (await api("PATCH", model, {"served_model_name": "tiny-2"})).json() == {"status": "ok"}
    assert (await api("PATCH", other, {"served_model_name": "tiny"})).json() == {"status": "ok"}


async def test_a_body_without_a_mode_has_fastapis_shape(api: Api) -> None:
    answer = await api.post(MODELS, {"name": "x"})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "mode"]


async def test_only_administrators_come_in(guarded: Api) -> None:
    envelope(await guarded.get(MODELS), 401, "unauthenticated")
    manager = await guarded.as_role(Role.MANAGER)
    for method, path in (
        ("GET", MODELS),
        ("POST", f"{MODELS}/1/start"),
        ("GET", f"{MODELS}/1/logs"),
        ("DELETE", f"{MODELS}/1"),
    ):
        envelope(await guarded(method, path, headers=manager), 403, "forbidden")


async def test_an_engine_that_ends_at_once_failed_and_says_why(api: Api, model_file: Path) -> None:
    model = await made(api, engine_startup_args_json=json.dumps([{"flag": "--no-such-flag", "type": "flag"}]))
    refused = await api.post(f"{model}/start")
    if refused.status_code == 409:  # the dry run knows the flags of this build
        refused = await api("POST", f"{model}/start", params={"override": "true"})
    with pytest.raises(Exception, match="did not start"):
        await api.services.instances.start(1, LOCAL_ADMIN, ignore=["unknown_flag"])
    shown = (await api.get(model)).json()
    assert shown["state"] == "failed" and shown["state_reason"]
    assert (await api.get(f"{model}/readiness")).json()["status"] == "error"
    told = (await api.get(f"{model}/logs", diagnose="true")).json()
    assert told["diagnosis"]["title"] and "no-such-flag" in told["logs"]
