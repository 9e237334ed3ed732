"""The question whether a model fits, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi, problem
from tests.fit.hf_models import write_model
from tests.hub.server import HubServer

PARTS = ("weights_bytes", "kv_cache_bytes", "compute_bytes", "overhead_bytes", "total_bytes")


async def test_a_stored_model_is_told_by_device_and_sums_up(api: Api, demo_model: Path) -> None:
    await api.model(demo_model, "demo", options={"context_length": 512, "parallel_slots": 1})
    told = (await api.post("/fit", {"model": "demo"})).json()
    assert (told["engine"], told["context_length"], told["parallel"]) == ("llamacpp", 512, 1)
    assert told["fits"] is True
    for place in (*told["devices"], told["host"]):
        assert place["total_bytes"] == sum(place[name] for name in PARTS[:-1])
        assert place["fits"] == (place["total_bytes"] <= place["free_bytes"])


async def test_the_answer_says_whether_it_is_counted_the_engines_or_measured(
    api: Api, demo_model: Path
) -> None:
    await api.model(demo_model, "demo", options={"context_length": 512})

    async def exactness(**question: Any) -> str:
        answer = await api.post("/fit", {"model": "demo", **question})
        return str(answer.json()["exactness"])

    assert await exactness() == "engine"
    assert await exactness(on="8GiB") == "estimated"
    assert await exactness(contexts=[256, 512]) == "estimated"
    assert (await api.post("/fit", {"path": str(demo_model)})).json()["exactness"] == "engine"

    assert (await api.post("/models/demo/start")).status_code == 200
    assert (await api.post("/models/demo/stop")).status_code == 200
    assert await exactness() == "measured"
    assert await exactness(contexts=[512]) == "measured"
    assert await exactness(options={"kv_cache_type": "q8_0"}) == "engine"
    memory = (await api.get("/models/demo")).json()["memory"]
    assert memory["exactness"] == "measured" and len(memory["load_seconds"]) == 1
    (host,) = memory["devices"]
    assert host["planned_bytes"] == host["measured_bytes"] > host["estimated_bytes"]
    run = (await api.post("/models/demo/dry-run")).json()
    assert run["needs"]["exactness"] == "measured" and run["expected_load_s"] == memory["load_seconds"][0]


async def test_options_of_the_question_win_over_those_of_the_recipe(api: Api, demo_model: Path) -> None:
    await api.model(demo_model, "demo", options={"context_length": 512, "parallel_slots": 1})
    recipe = (await api.post("/fit", {"model": "demo"})).json()
    asked = (await api.post("/fit", {"model": "demo", "options": {"ctx_size": 1024}})).json()
    assert asked["context_length"] == 1024
    assert asked["host"]["kv_cache_bytes"] == 2 * recipe["host"]["kv_cache_bytes"]


async def test_described_hardware_is_filled_as_far_as_it_goes(api: Api, demo_model: Path) -> None:
    on = {"path": str(demo_model), "on": "2x1GiB+1GiB host"}
    roomy = (await api.post("/fit", on)).json()
    assert [device["id"] for device in roomy["devices"]] == ["cuda:0", "cuda:1"] and roomy["fits"]
    one = (await api.post("/fit", {**on, "gpus": [1]})).json()
    assert [device["id"] for device in one["devices"]] == ["cuda:1"]
    huge = (await api.post("/fit", {**on, "contexts": [1 << 26]})).json()
    assert huge["fits"] is False and huge["max_context_length"] == 1024


async def test_several_contexts_are_answered_in_their_order(api: Api, demo_model: Path) -> None:
    told = (await api.post("/fit", {"path": str(demo_model), "contexts": [256, 1024, 512]})).json()
    assert [one["context_length"] for one in told["contexts"]] == [256, 1024, 512]
    assert told["context_length"] == 256


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "model"),
        ({"model": "a", "hub": "b/c"}, "model"),
        ({"path": "{demo}", "on": "much"}, "on"),
        ({"path": "{demo}", "on": "24GiB", "hardware": {}}, "hardware"),
        ({"path": "{demo}", "gpus": [99]}, "gpus"),
        ({"path": "{demo}", "options": {"kv_cache_type": "q9"}}, "options.kv_cache_type"),
        ({"path": "{demo}", "contexts": [-1]}, "context_length"),
        ({"path": "../x.gguf"}, None),
        ({"path": "{demo}", "modell": 1}, "modell"),
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(
    api: Api, demo_model: Path, body: dict[str, object], field: str | None
) -> None:
    filled = {key: str(demo_model) if value == "{demo}" else value for key, value in body.items()}
    told = problem(await api.post("/fit", filled), 422)
    assert field is None or told["facts"]["field"] == field


async def test_files_of_options_outside_the_library_are_for_administrators(
    make_api: MakeApi, demo_model: Path, tmp_path: Path
) -> None:
    api = await make_api(host="0.0.0.0")
    await api.model(demo_model, "demo")
    who = await api.as_role(Role.POWER_USER)
    body = {"model": "demo", "options": {"draft_model": str(tmp_path / "secret.gguf")}}
    assert (await api("POST", "/fit", body, headers=who)).status_code == 403
    admin = await api.as_role(Role.ADMIN)
    told = await api("POST", "/fit", body, headers=admin)
    assert any("draft model is not counted" in warning for warning in told.json()["warnings"])


async def test_a_path_outside_the_library_is_for_administrators(make_api: MakeApi, demo_model: Path) -> None:
    api = await make_api(host="0.0.0.0")
    who = await api.as_role(Role.POWER_USER)
    answer = await api("POST", "/fit", {"path": str(demo_model)}, headers=who)
    assert answer.status_code == 403


async def test_who_would_leave_is_named_on_this_host_and_nobody_on_another(
    make_api: MakeApi, demo_model: Path
) -> None:
    api = await make_api(devices="cpu:12MiB", device_reserve="0")
    await api.model(demo_model, "resident")
    assert (await api.post("/models/resident/start", {"keep": False})).status_code == 200
    here = (await api.post("/fit", {"path": str(demo_model)})).json()
    assert [one["model"] for one in here["evictions"]] == ["resident"]
    there = (await api.post("/fit", {"path": str(demo_model), "on": "12MiB host"})).json()
    assert there["evictions"] == [] and there["fits"] is True


async def test_a_recipe_that_is_not_saved_has_a_dry_run_and_stays_unsaved(api: Api, demo_model: Path) -> None:
    recipe = {"source": {"path": str(demo_model)}, "name": "planned", "options": {"context_length": 512}}
    told = (await api.post("/dry-run", recipe)).json()
    assert "--ctx-size" in told["argv"] and told["fits"] is True and told["needs"]["context_length"] == 512
    assert (await api.get("/models")).json()["total"] == 0
    problem(await api.post("/dry-run", {**recipe, "options": {"ctx": "many"}}), 422)


async def test_a_folder_of_safetensors_is_answered_for_vllm_in_the_same_form(
    api: Api, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "small")
    told = (await api.post("/fit", {"path": str(folder), "on": "2x24GiB", "contexts": [1024]})).json()
    assert (told["engine"], told["context_length"], told["fits"]) == ("vllm", 1024, True)
    assert told["options"] == {"tensor_parallel_size": 1}
    for place in (*told["devices"], told["host"]):
        assert place["total_bytes"] == sum(place[name] for name in PARTS[:-1])
    assert told["kv_cache_tokens"] > 0
    assert told["max_concurrency"] == pytest.approx(told["kv_cache_tokens"] / 1024, abs=0.01)
    options = {"parallel_slots": 4, "kv_cache_type": "fp8", "tensor_parallel_size": 2}
    asked = {"path": str(folder), "on": "2x24GiB", "contexts": [512, 1024], "options": options}
    told = (await api.post("/fit", asked)).json()
    assert told["parallel"] == 4 and len(told["devices"]) == 2 and len(told["contexts"]) == 2


async def test_a_stored_model_is_counted_with_its_own_options_for_vllm(api: Api, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "small")
    await api.model(folder, "small", options={"cpu_kv_cache_gib": 1, "context_length": 1024})
    told = (await api.post("/fit", {"model": "small"})).json()
    assert told["host"]["kv_cache_bytes"] == 1 << 30


async def test_a_stored_model_is_held_against_the_limit_of_its_container(api: Api, demo_model: Path) -> None:
    limit = {"runtime": "docker", "runtime_options": {"memory": "10MiB"}}
    await api.model(demo_model, "tight", options={"context_length": 8192}, **limit)
    told = (await api.post("/fit", {"model": "tight", "on": "cpu:8GiB"})).json()
    assert told["fits"] is False and told["host"]["name"] == "a container of 10 MiB (runtime_options.memory)"
    assert told["warnings"][-1].endswith("where its container may take 10 MiB (runtime_options.memory)")


async def test_safetensors_on_the_hub_are_answered_from_their_headers(
    make_api: MakeApi, hub_server: HubServer, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "small")
    hub_server.add_repo("org/small", {file.name: file for file in folder.iterdir()})
    api = await make_api(offline=False, hf_endpoint=hub_server.endpoint)
    asked = {"on": "24GiB", "contexts": [1024]}
    remote = (await api.post("/fit", {"hub": "org/small", **asked})).json()
    here = (await api.post("/fit", {"path": str(folder), **asked})).json()
    assert remote["engine"] == "vllm" and remote == here


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("config.json", '{"model_type": "llama"}', "num_hidden_layers"),
        ("config.json", '{"model_type": ', "JSON"),
        ("config.json", None, "config.json"),
        (
            "model.safetensors.index.json",
            '{"weight_map": {"a": "model.safetensors", "b": "part-2.safetensors"}}',
            "part-2.safetensors",
        ),
    ],
)
async def test_a_folder_that_cannot_be_counted_says_why(
    api: Api, tmp_path: Path, name: str, text: str | None, word: str
) -> None:
    file = write_model(tmp_path / "small") / name
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    answer = await api.post("/fit", {"path": str(file.parent), "on": "24GiB"})
    assert answer.status_code in (404, 422) and word in answer.json()["detail"], answer.text
