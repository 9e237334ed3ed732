"""Settings, system, engines, usage, health and documentation over HTTP."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from ostler.core.principals import Role
from ostler.core.settings import Settings
from ostler.usage.tables import RequestRow
from tests.api.conftest import Api, MakeApi, problem


async def test_every_setting_is_listed_with_its_origin_and_secrets_hidden(make_api: MakeApi) -> None:
    environ = {"HF_TOKEN": "hf_very_secret", "OSTLER_MAX_QUEUE": "9"}
    api = await make_api(environ=environ)
    answer = await api.get("/settings", limit=1000)
    assert "hf_very_secret" not in answer.text
    shown = {item["name"]: item for item in answer.json()["items"]}
    assert shown.keys() == Settings.model_fields.keys()
    assert (shown["hf_token"]["value"], shown["hf_token"]["secret"]) == ("********", True)
    assert (shown["max_queue"]["value"], shown["max_queue"]["origin"]) == (9, "environment")
    assert shown["max_running"]["live"] is True and shown["port"]["live"] is False
    assert shown["hf_token"]["env"][1] == "HF_TOKEN" and shown["max_running"]["default"] == 4
    assert "OSTLER_DATA_DIR" in shown["data_dir"]["env"] and shown["data_dir"]["origin"] == "command line"


async def test_a_live_setting_changes_at_once_and_a_fixed_one_is_409(make_api: MakeApi) -> None:
    api = await make_api(environ={"OSTLER_MAX_QUEUE": "9"})
    changed = await api("PATCH", "/settings", {"max_running": 2})
    assert changed.status_code == 200, changed.text
    assert changed.json()["items"][0]["origin"] == "changed at run time"
    assert api.services.settings.current.max_running == 2
    assert "environment" in problem(await api("PATCH", "/settings", {"max_queue": 1}), 409)["detail"]
    problem(await api("PATCH", "/settings", {"port": 1}), 409, "setting_is_fixed")
    wrong = problem(await api("PATCH", "/settings", {"max_runing": 1}), 422, "bad_setting")
    assert wrong["hint"] == "Did you mean max_running?"
    bodies: tuple[Any, ...] = ({"max_running": -1}, {"max_running": "x"}, [], "x", {"max_running": 10**400})
    for body in bodies:
        problem(await api("PATCH", "/settings", body), 422)
    assert (await api("PATCH", "/settings", {"max_running": None})).json()["items"][0]["value"] == 4


async def test_engines_and_their_options_are_listed(api: Api) -> None:
    engines = (await api.get("/engines")).json()["items"]
    assert engines[0]["name"] == "llamacpp" and engines[0]["formats"] == ["gguf"]
    options = (await api.get("/engines/llamacpp/options", limit=1000)).json()
    assert options["total"] == engines[0]["options"] > 50
    by_name = {option["name"]: option for option in options["items"]}
    assert "--ctx-size" in by_name["context_length"]["flags"]
    found = (await api.get("/engines/llamacpp/options", search="context_length")).json()
    assert found["total"] >= 1
    problem(await api.get("/engines/llamacp/options"), 404)


async def test_a_command_line_is_taken_apart_and_secrets_in_it_are_hidden(api: Api) -> None:
    command = "llama-server -m /m/x.gguf -c 4096 --port 80 --api-key s3cret"
    answer = await api.post("/engines/llamacpp/parse", {"command": command})
    assert answer.status_code == 200, answer.text
    parsed = answer.json()
    assert (parsed["model"], parsed["options"]) == ("/m/x.gguf", {"context_length": 4096})
    assert parsed["ignored"] and "s3cret" not in answer.text
    for command in ("llama-server -c many", "llama-server 'unclosed", ""):
        assert (await api.post("/engines/llamacpp/parse", {"command": command})).status_code in (200, 422)
    problem(await api.post("/engines/llamacpp/parse", {"command": 5}), 422)


async def test_devices_name_the_host_with_its_memory(api: Api) -> None:
    devices = (await api.get("/devices")).json()["items"]
    assert devices[-1]["kind"] == "cpu" and devices[-1]["total_bytes"] > devices[-1]["free_bytes"] > 0


async def test_devices_show_the_ledger(make_api: MakeApi, demo_model: Path) -> None:
    api = await make_api(devices="24GiB,cpu:1GiB", device_reserve="1GiB,cpu=0")
    await api.model(demo_model, "tiny", options={"gpu_layers": 0, "op_offload": False})
    assert (await api.post("/models/tiny/start")).status_code == 200
    gpu, host = (await api.get("/devices")).json()["items"]
    assert (gpu["id"], gpu["is_real"], gpu["available_bytes"]) == ("cuda:0", False, 23 * 2**30)
    assert host["promised_bytes"] > 0 == host["foreign_bytes"]
    assert host["available_bytes"] == 2**30 - host["promised_bytes"]


async def test_a_model_that_cannot_fit_is_refused_with_numbers_unless_told_otherwise(
    make_api: MakeApi, demo_model: Path
) -> None:
    api = await make_api(devices="cpu:10MiB", device_reserve="0")
    await api.model(demo_model, "large", options={"context_length": 4096})
    dry = (await api.post("/models/large/dry-run")).json()
    (error,) = (found for found in dry["findings"] if found["severity"] == "error")
    assert dry["fits"] is False and dry["can_start"] is False and dry["fit"][0]["id"] == "cpu"
    assert (error["code"], error["category"], error["can_ignore"]) == ("does_not_fit", "memory", True)
    for call in (
        api.post("/models/large/start"),
        api.post("/models/large/start", {"wait": True, "ignore_fit": False}),
    ):
        refused = problem(await call, 409, "will_not_fit")
        assert refused["kind"] == "does_not_fit"
        assert refused["facts"]["devices"][0]["total_bytes"] == 10 * 2**20
    started = await api.post("/models/large/start", {"ignore_fit": True})
    assert (started.status_code, started.json()["state"]) == (200, "running")


async def test_the_system_tells_paths_to_administrators_only(api: Api) -> None:
    full = (await api.get("/system")).json()
    assert full["data_dir"] == str(api.data_dir) and full["version"]
    user = await api.as_role(Role.USER)
    assert str(api.data_dir) not in (await api("GET", "/system", headers=user)).text


async def test_a_password_in_the_databases_address_is_hidden() -> None:
    from ostler.api.shapes import hide_args, hide_password

    assert hide_password("postgresql+psycopg://me:pw@db/x") == "postgresql+psycopg://me:********@db/x"
    assert hide_args(["--hf-token", "x", "--token=y", "-c", "5", "--verbose-key", "-n"]) == [
        "--hf-token",
        "********",
        "--token=********",
        "-c",
        "5",
        "--verbose-key",
        "-n",
    ]


async def test_usage_is_added_up_and_requests_are_listed(api: Api) -> None:
    _, token = await api.services.keys.create("ci", Role.USER, api.services.access.authenticate(None))
    row = dict.fromkeys(RequestRow.__table__.columns.keys()) | {
        "at": datetime.now(UTC), "model_name": "tiny", "principal": "local", "path": "/v1/chat/completions",
        "status": 200, "streamed": False, "prompt_tokens": 3, "completion_tokens": 4, "duration_s": 0.5,
    }  # fmt: skip
    row.pop("id")
    async with api.services.database.write() as session:
        await session.execute(insert(RequestRow), [row, {**row, "principal": "ci", "status": 500}])
    total = (await api.get("/usage", by="model")).json()["items"][0]
    assert (total["name"], total["requests"], total["errors"], total["prompt_tokens"]) == ("tiny", 2, 1, 6)
    assert {item["name"] for item in (await api.get("/usage", by="key")).json()["items"]} == {"local", "ci"}
    listed = (await api.get("/requests", failed=True)).json()
    assert (listed["total"], listed["items"][0]["status"]) == (1, 500)
    problem(await api.get("/usage", by="moon"), 422)
    problem(await api.get("/requests", sort="secret"), 422)
    problem(await api.get("/requests", since="yesterday"), 422)
    problem(await api.get("/requests", since="2030-01-01T00:00:00"), 422)
    assert (await api.get("/requests", since="2030-01-01T00:00:00Z")).json()["total"] == 0
    mine = await api("GET", "/requests?principal=local", headers={"x-api-key": token})
    assert all(item["principal"] == "ci" for item in mine.json()["items"])


async def test_health_and_readiness_need_no_key_and_metrics_do(guarded: Api) -> None:
    alive = await guarded.get("//health")
    assert (alive.status_code, alive.json()["status"]) == (200, "ok")
    ready = await guarded.get("//ready")
    assert ready.status_code == 200, ready.text
    assert set(ready.json()["checks"]) == {"database", "engines", "disk"}
    for probe in ("//health", "//ready"):
        assert (await guarded("HEAD", probe)).status_code == 200
    problem(await guarded.get("//metrics"), 401)
    told = await guarded("GET", "//metrics", headers=await guarded.as_role(Role.USER))
    assert told.status_code == 200 and told.headers["content-type"].startswith("text/plain")
    families = re.findall(r"^# TYPE (\S+)", told.text, re.MULTILINE)
    assert len(families) == len(set(families)) and "ostler_models" in families
    assert 'ostler_instances{state="running"} 0.0' in told.text


async def test_readiness_says_what_is_wrong(api: Api) -> None:
    await api.services.database.close()
    for runtime in api.services.runtimes:
        api.services.runtimes = {k: v for k, v in api.services.runtimes.items() if k != runtime}
    answer = await api.get("//ready")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["engines"]["ok"] is False and checks["disk"]["ok"] is True
    api.services.closing.set()
    assert (await api.get("//ready")).status_code == 503


async def test_the_documentation_works_without_any_other_server(api: Api) -> None:
    browser = {"accept": "text/html,*/*"}
    assert (await api("GET", "//", headers=browser)).headers["location"] == "docs"
    assert (await api.get("//")).text == "Ostler is running"
    page = await api.get("//docs")
    assert page.status_code == 200 and "script-src 'self'" in page.headers["content-security-policy"]
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(wanted) == 4
    for path in wanted:
        assert not path.startswith(("http", "//"))
        asset = await api.get(f"//{path}")
        assert asset.status_code == 200 and len(asset.content) > 50, path
    assert "openapi.json" in (await api.get("//docs/start.js")).text
    problem(await api.get("//docs/..%2f..%2fsecrets"), 404)


async def test_the_openapi_document_names_roles_errors_and_keys(api: Api) -> None:
    document = (await api.get("//openapi.json")).json()
    assert document["openapi"].startswith("3.")
    operation = document["paths"]["/ostler/v1/keys"]["post"]
    assert operation["x-role"] == "admin"
    assert "application/problem+json" in operation["responses"]["default"]["content"]
    summaries = [o for methods in document["paths"].values() for o in methods.values()]
    assert all(o["description"] for o in summaries)
