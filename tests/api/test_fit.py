"""The question whether a model fits, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi, problem

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
