"""Recipes over Cortex's API and over ours."""

from __future__ import annotations

from pathlib import Path

from tests.api.conftest import Api, problem
from tests.api.dialects.cortex.shapes import envelope


async def test_a_recipe_keeps_the_whole_record_but_its_secrets(api: Api, model_file: Path) -> None:
    model = await api.model(
        model_file,
        "tiny",
        options={"context_length": 512, "gpu_layers": 0},
        extra_args=("--ssl-key-password", "hf_secret", "--no-warmup"),
        env={"MY_TOKEN": "hf_secret", "LLAMA_LOG_COLORS": "off"},
        request_defaults={"temperature": 0.1},
        policy={"pinned": True},
        dialect_data={"cortex": {"name": "Tiny model", "engine_version": "b4000"}},
        description="a tiny one",
    )
    made = await api.post(f"//admin/recipes/from-model/{model.id}", {"name": "my recipe", "description": "d"})
    assert made.status_code == 200 and "hf_secret" not in made.text, made.text
    recipe = made.json()
    assert (recipe["name"], recipe["description"], recipe["model_id"]) == ("my recipe", "d", model.id)
    assert (recipe["model_name"], recipe["served_model_name"]) == ("Tiny model", "tiny")
    assert (recipe["mode"], recipe["engine_type"], recipe["task"]) == ("offline", "llamacpp", "generate")
    assert (recipe["context_size"], recipe["ngl"], recipe["temperature"]) == (512, 0, 0.1)
    assert recipe["local_path"] == "tiny-Q8_0.gguf" and recipe["engine_version"] == "b4000"
    assert recipe["left_out"] == ["env.MY_TOKEN", "extra_args.--ssl-key-password"]
    again = await api.post(f"/recipes/{recipe['id']}/model", {"name": "tiny-2"})
    assert again.status_code == 201, again.text
    copy = api.services.models.get("tiny-2")
    for field in ("options", "request_defaults", "policy", "dialect_data", "description", "source", "engine"):
        assert getattr(copy, field) == getattr(model, field), field
    assert copy.extra_args == ("--no-warmup",) and copy.env == {"LLAMA_LOG_COLORS": "off"}


async def test_a_recipe_outlives_its_model_and_its_files_stay(api: Api, model_file: Path) -> None:
    model = await api.model(model_file, "tiny")
    recipe = (await api.post(f"//admin/recipes/from-model/{model.id}", {"name": "kept"})).json()
    assert (await api("DELETE", "/models/tiny")).status_code == 200
    assert (await api.get(f"//admin/recipes/{recipe['id']}")).json() == recipe
    assert (await api.post(f"/recipes/{recipe['id']}/model", {})).json()["name"] == "tiny"
    assert (await api("DELETE", f"//admin/recipes/{recipe['id']}")).json() == {"status": "deleted"}
    assert model_file.exists() and api.services.models.find("tiny") is not None


async def test_recipes_are_listed_renamed_and_refused_as_cortex_does(api: Api, model_file: Path) -> None:
    model = await api.model(model_file, "tiny")
    for name in ("one", "two"):
        await api.post(f"//admin/recipes/from-model/{model.id}", {"name": name})
    path = f"//admin/recipes/from-model/{model.id}"
    envelope(await api.post(path, {"name": "one"}), 409, "Recipe name already exists")
    envelope(await api.post("//admin/recipes/from-model/99", {"name": "x"}), 404, "Model not found")
    envelope(await api.get("//admin/recipes/99"), 404, "Recipe not found")
    assert (await api.post(path, {"name": " "})).status_code == 422
    changed = await api("PATCH", "//admin/recipes/1", {"name": "three", "description": "about three"})
    assert (changed.json()["name"], changed.json()["description"]) == ("three", "about three")
    envelope(await api("PATCH", "//admin/recipes/1", {"name": "two"}), 409, "Recipe name already exists")
    listed = (await api.get("//admin/recipes")).json()
    assert [recipe["name"] for recipe in listed] == ["three", "two"]
    assert [r["name"] for r in (await api.get("//admin/recipes", q="THREE")).json()] == ["three"]
    assert (await api.get("//admin/recipes", engine_type="vllm")).json() == []
    assert len((await api.get("//admin/recipes", limit=1, offset=1)).json()) == 1


async def test_a_recipe_is_made_of_cortexs_fields_and_checked(api: Api, model_file: Path) -> None:
    body = {
        "recipe_name": "from fields",
        "served_model_name": "tiny",
        "name": "Tiny model",
        "mode": "offline",
        "local_path": model_file.name,
        "engine_type": "llamacpp",
        "context_size": 512,
        "ngl": 0,
        "temperature": 0.3,
        "custom_request_json": '{"min_p": 0.1}',
        "engine_startup_args_json": '[{"flag": "--no-warmup", "type": "flag", "value": true}]',
        "startup_timeout_sec": 60,
        "hf_token": "hf_secret",
    }
    made = await api.post("//admin/recipes", body)
    assert made.status_code == 200 and "hf_secret" not in made.text, made.text
    content = (await api.get("/recipes/1")).json()["content"]
    assert content["options"]["context_length"] == 512 and content["options"]["gpu_layers"] == 0
    assert content["request_defaults"] == {"temperature": 0.3, "min_p": 0.1}
    assert content["policy"]["start_timeout_s"] == 60
    config = made.json()["config"]
    assert {name: config[name] for name in ("context_size", "ngl", "temperature", "startup_timeout_sec")} == {
        "context_size": 512,
        "ngl": 0,
        "temperature": 0.3,
        "startup_timeout_sec": 60,
    }
    for wrong in ({"context_size": "wide"}, {"custom_request_json": "{"}, {"local_path": "../../etc/passwd"}):
        answer = await api.post("//admin/recipes", {**body, "recipe_name": "wrong", **wrong})
        assert 400 <= answer.status_code < 500, answer.text
    assert len((await api.get("//admin/recipes")).json()) == 1


async def test_recipes_in_our_own_api(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny")
    made = await api.post("/recipes", {"name": "kept", "model": "tiny"})
    assert made.status_code == 201 and made.json()["content"]["name"] == "tiny"
    assert (await api.get("/recipes")).json()["total"] == 1
    problem(await api.post("/recipes", {"name": "kept", "model": "tiny"}), 409, "recipe_name_taken")
    problem(await api.post("/recipes", {"name": "x", "model": "none"}), 404, "model_not_found")
    problem(await api.get("/recipes/9"), 404, "recipe_not_found")
    problem(await api.get("/recipes", sort="nonsense"), 422)
    assert (await api("PATCH", "/recipes/1", {"name": "again"})).json()["name"] == "again"
    assert (await api("DELETE", "/recipes/1")).json()["name"] == "again"
