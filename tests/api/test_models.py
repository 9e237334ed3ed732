"""Models over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ostler.core.principals import Role
from tests.api.conftest import Api, problem


async def test_a_model_is_created_read_listed_changed_copied_and_deleted(api: Api, model_file: Path) -> None:
    body = {"name": "tiny", "source": {"path": model_file.name}, "options": {"context_length": 256}}
    made = await api.post("/models", body)
    assert made.status_code == 201, made.text
    shown = (await api.get("/models/tiny")).json()
    assert shown == made.json()
    assert (shown["engine"], shown["state"], shown["instance"]) == ("llamacpp", "stopped", None)
    assert shown["source"] == {"kind": "file", "path": str(model_file)}
    assert shown["file_set"]["quantization"] == "Q8_0" and shown["file_set"]["facts"]["architecture"]
    listed = (await api.get("/models")).json()
    assert (listed["total"], [item["name"] for item in listed["items"]]) == (1, ["tiny"])
    assert listed["items"][0]["file_set"]["size_bytes"] == model_file.stat().st_size
    changed = await api("PATCH", "/models/tiny", {"options": {"threads": 1}, "aliases": ["t"]})
    assert changed.json()["options"] == {"context_length": 256, "threads": 1}
    assert (await api.get("/models/t")).json()["name"] == "tiny"
    copied = await api.post("/models/tiny/copy", {"name": "other"})
    assert copied.status_code == 201 and copied.json()["source"] == shown["source"]
    assert (await api("DELETE", "/models/tiny")).json()["name"] == "tiny"
    assert [item["name"] for item in (await api.get("/models")).json()["items"]] == ["other"]
    assert model_file.exists()


async def test_names_with_slashes_work_raw_and_encoded_and_with_actions(api: Api, model_file: Path) -> None:
    await api.model(model_file, "org/repo:Q4_K_M")
    await api.model(model_file, "start")
    await api.model(model_file, "logs.instance")
    for name in ("org/repo:Q4_K_M", quote("org/repo:Q4_K_M", safe=""), "start", "logs.instance"):
        assert (await api.get(f"/models/{name}")).status_code == 200, name
        assert (await api.get(f"/models/{name}/instance")).json()["state"] == "stopped", name
        assert (await api.post(f"/models/{name}/dry-run")).status_code == 200, name


async def test_a_name_that_could_be_taken_for_an_action_is_refused_at_creation(
    api: Api, model_file: Path
) -> None:
    for name in ("org/start", "a/b/logs", "../up", "a/../b", "/abs", "status", "a//b", "a ", "x" * 300):
        problem(await api.post("/models", {"name": name, "source": {"path": model_file.name}}), 422)
    assert (await api.get("/models")).json()["total"] == 0


async def test_a_model_is_found_by_its_id(api: Api, model_file: Path) -> None:
    made = await api.model(model_file, "tiny")
    assert (await api.get(f"/models/id:{made.id}")).json()["name"] == "tiny"
    problem(await api.get("/models/id:999"), 404)


async def test_an_unknown_model_is_404_with_near_names(api: Api, model_file: Path) -> None:
    await api.model(model_file, "qwen3-8b")
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/start"),
        ("GET", "/logs"),
        ("POST", "/stop"),
    ):
        body = problem(await api(method, f"/models/qwen3-8{path}"), 404, "model_not_found")
        assert "qwen3-8b" in body["hint"] and body["facts"]["near"] == ["qwen3-8b"]


async def test_an_unknown_option_or_field_is_422_and_names_the_near_ones(api: Api, model_file: Path) -> None:
    source = {"path": model_file.name}
    wrong = problem(await api.post("/models", {"source": source, "options": {"context_lenght": 1}}), 422)
    assert "context_length" in str(wrong["hint"])
    wrong = problem(await api.post("/models", {"sorce": source}), 422, "invalid_field")
    assert wrong["hint"] == "Did you mean source?" and wrong["facts"]["field"] == "sorce"
    wrong = problem(await api.post("/models", {"source": {"pth": "x"}}), 422)
    assert wrong["hint"] == "Did you mean path?"
    wrong = problem(await api.post("/models", {"source": source, "options": {"context_length": -5}}), 422)
    assert "context_length" in wrong["detail"] and "-5" in wrong["detail"]
    problem(await api.post("/models", {"source": source, "policy": {"pined": True}}), 422)


@pytest.mark.parametrize(
    "path", ["../x.gguf", "a/../../x.gguf", "/etc/../etc/passwd", "x\0.gguf", "link/x.gguf"]
)
async def test_no_path_in_a_body_leads_out_of_its_place(api: Api, model_file: Path, path: str) -> None:
    outside = model_file.parents[2] / "outside"
    outside.mkdir()
    (outside / "x.gguf").write_bytes(model_file.read_bytes())
    (model_file.parent / "link").symlink_to(outside)
    for body in ({"path": path}, {"repo": path}, {"hub": f"org/repo:{path}"}):
        answer = await api.post("/models", {"name": "m", "source": body})
        assert 400 <= answer.status_code < 500, (body, answer.text)
    for route, asked in (
        ("/files/inspect", {"path": path}),
        ("/roots", {"path": path, "layout": "folder"}),
        ("/downloads", {"spec": f"org/repo:{path}"}),
        ("/downloads/plan", {"spec": path}),
    ):
        answer = await api.post(route, asked)
        assert 400 <= answer.status_code < 500 or answer.json()["code"] == "offline", (route, answer.text)
    assert (await api.get("/models")).json()["total"] == 0


async def test_wrong_types_and_missing_sources_are_422(api: Api, model_file: Path) -> None:
    source = {"path": model_file.name}
    bodies: list[Any] = [
        [],
        "text",
        1,
        None,
        {},
        {"source": []},
        {"source": {}},
        {"source": {"path": 1}},
        {"source": {"path": ""}},
        {"source": {"path": "../secret.gguf"}},
        {"source": {"path": "/models/../secret.gguf"}},
        {"source": {"path": "no-such-file.gguf"}},
        {"source": {"hub": "not a spec"}},
        {"source": source, "options": []},
        {"source": source, "extra_args": "text"},
        {"source": source, "env": {"A": 1}},
        {"source": source, "env": {"A B": "x"}},
        {"source": source, "runtime": "spaceship"},
        {"source": source, "engine": "vlm"},
        {"source": source, "extra_args": ["--port", "1"]},
    ]
    for body in bodies:
        answer = await api.client.post("/ostler/v1/models", json=body)
        assert answer.status_code in (404, 422), (body, answer.text)
        problem(answer, answer.status_code)
    assert (await api.get("/models")).json()["total"] == 0


async def test_a_command_line_becomes_options(api: Api, model_file: Path) -> None:
    command = f"llama-server -m {model_file} -c 512 --port 1 --alias pasted"
    made = await api.post("/models", {"command_line": command})
    assert made.status_code == 201, made.text
    assert (made.json()["name"], made.json()["options"]) == ("pasted", {"context_length": 512})
    assert made.json()["source"]["path"] == str(model_file)


async def test_a_change_based_on_an_old_revision_is_refused(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny")
    etag = (await api.get("/models/tiny")).headers["etag"]
    first = await api("PATCH", "/models/tiny", {"description": "a"}, headers={"If-Match": etag})
    assert first.status_code == 200 and first.headers["etag"] != etag
    problem(
        await api("PATCH", "/models/tiny", {"description": "b"}, headers={"If-Match": etag}),
        412,
        "changed_meanwhile",
    )
    problem(await api("PATCH", "/models/tiny", {"description": "b", "revision": 1}), 409)
    problem(await api("PATCH", "/models/tiny", {"description": "b"}, headers={"If-Match": "x"}), 422)
    assert (await api.get("/models/tiny")).json()["description"] == "a"


async def test_secrets_of_a_model_are_hidden_and_survive_being_sent_back(api: Api, model_file: Path) -> None:
    secret = "very-secret-value"
    env = {"MY_API_KEY": secret, "MY_PASSWORD": secret, "MODE": "fast"}
    await api.model(model_file, "tiny", env=env)
    shown = await api.get("/models/tiny")
    listed, dry = await api.get("/models"), await api.post("/models/tiny/dry-run")
    assert dry.status_code == 200
    assert secret not in shown.text + listed.text + dry.text
    assert shown.json()["env"] == {"MY_API_KEY": "********", "MY_PASSWORD": "********", "MODE": "fast"}
    changed = await api("PATCH", "/models/tiny", {"env": {**shown.json()["env"], "MODE": "slow"}})
    assert changed.status_code == 200
    assert api.services.models.get("tiny").env == {**env, "MODE": "slow"}
    problem(await api.post("/models", {"source": {"path": "x"}, "env": {"A": "********"}}), 422)


async def test_a_key_with_an_allow_list_sees_and_touches_only_its_models(api: Api, model_file: Path) -> None:
    await api.model(model_file, "qwen-a")
    await api.model(model_file, "llama-b")
    limited = await api.as_role(Role.MANAGER, models=("qwen*",))
    listed = (await api("GET", "/models", headers=limited)).json()
    assert (listed["total"], listed["items"][0]["name"]) == (1, "qwen-a")
    problem(await api("GET", "/models/llama-b", headers=limited), 403, "model_not_for_you")
    problem(await api("POST", "/models/llama-b/start", headers=limited), 403)
    problem(await api("DELETE", "/models/llama-b", headers=limited), 403)


async def test_models_are_sorted_searched_and_paged(api: Api, model_file: Path) -> None:
    for name in ("b", "a", "c", "cc"):
        await api.model(model_file, name)
    page = (await api.get("/models", sort="-name", limit=2, offset=1)).json()
    assert [item["name"] for item in page["items"]] == ["c", "b"]
    assert (page["total"], page["limit"], page["offset"]) == (4, 2, 1)
    assert (await api.get("/models", search="C", unknown="ignored")).json()["total"] == 2
    assert (await api.get("/models", state="running")).json()["total"] == 0
    assert (await api.get("/models", state="stopped")).json()["total"] == 4
    for query in ({"limit": 0}, {"limit": 1001}, {"offset": -1}, {"sort": "secret"}, {"state": "flying"}):
        problem(await api.get("/models", **query), 422)


async def test_a_model_of_a_file_outside_every_folder_is_listed_with_its_files(
    api: Api, demo_model: Path
) -> None:
    await api.model(demo_model, "far")
    listed = (await api.get("/models")).json()["items"][0]
    assert listed["file_set"]["path"] == str(demo_model) and listed["file_set"]["facts"]["architecture"]


async def test_a_model_whose_file_is_gone_is_still_listed_and_says_so(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny")
    model_file.unlink()
    shown = (await api.get("/models/tiny")).json()
    assert shown["file_set"] is None and "gone" in shown["files_problem"]
    assert (await api.get("/models")).json()["items"][0]["file_set"] is None
    problem(await api.post("/models/tiny/start"), 404, "model_file_gone")


async def test_a_model_starts_runs_logs_and_stops(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny", options={"context_length": 256})
    started = await api.post("/models/tiny/start")
    assert started.status_code == 200, started.text
    assert started.json()["state"] == "running" and started.json()["url"].startswith("http://127.0.0.1:")
    assert (await api.get("/models/tiny")).json()["state"] == "running"
    user = await api.as_role(Role.USER)
    seen = (await api("GET", "/models/tiny/instance", headers=user)).json()
    assert (seen["state"], seen["url"], seen["pid"]) == ("running", None, None)
    assert (await api.get("/instances")).json()["items"][0]["model_name"] == "tiny"
    logs = await api.get("/models/tiny/logs", tail=5)
    assert logs.headers["content-type"].startswith("text/plain") and 1 <= len(logs.text.splitlines()) <= 5
    problem(await api("GET", "/models/tiny/logs", headers=user), 403)
    problem(await api("DELETE", "/models/tiny"), 409, "model_in_use")
    assert (await api.post("/models/tiny/apply")).json()["id"] == started.json()["id"]
    await api("PATCH", "/models/tiny", {"options": {"context_length": 512}})
    async with asyncio.timeout(10):
        while not (await api.get("/models/tiny/instance")).json()["drift"]:
            await asyncio.sleep(0.01)
    applied = (await api.post("/models/tiny/apply")).json()
    assert applied["id"] != started.json()["id"] and applied["drift"] is False
    assert (await api.post("/models/tiny/stop", {"now": True})).json()["state"] == "stopped"
    assert (await api.get("/instances", active=True)).json()["total"] == 0


async def test_a_start_that_does_not_wait_is_202_and_stop_all_ends_it(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny")
    started = await api.post("/models/tiny/start", {"wait": False})
    assert started.status_code == 202 and started.json()["state"] in ("starting", "loading")
    async with asyncio.timeout(30):
        await api.post("/models/tiny/start")
        stopped = await api.post("/instances/stop-all")
    assert stopped.status_code == 200
    assert (await api.get("/models/tiny")).json()["state"] == "stopped"


async def test_a_start_that_fails_says_why_and_what_to_try(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny", extra_args=("--no-such-flag",))
    failed = problem(await api.post("/models/tiny/start"), 422)
    assert "--no-such-flag" in failed["detail"]
    await api.model(model_file, "broken", options={"context_length": 256})
    data = model_file.read_bytes()
    model_file.write_bytes(data[: len(data) // 2])
    answer = await api.post("/models/broken/start")
    assert problem(answer, answer.status_code)["hint"] and answer.status_code == 409
    assert (await api.get("/models/broken")).json()["state"] in ("stopped", "failed")


async def test_logs_of_a_model_that_never_ran_are_empty(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny")
    answer = await api.get("/models/tiny/logs", follow=True)
    assert (answer.status_code, answer.text) == (200, "")
