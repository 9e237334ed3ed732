"""Instances over llamactl's API, with the real llama-server behind it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ostler.core.principals import LOCAL_ADMIN, Role
from ostler.models.records import NewModel
from tests.api.dialects.llamactl.conftest import ROOT, Llamactl, MakeLlamactl
from tests.api.dialects.llamactl.shapes import failure, not_let_in
from tests.hub.server import HubServer

pytestmark = pytest.mark.real

HELLO = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


async def test_an_instance_is_made_stopped_and_shown_as_it_was_sent(llamactl: Llamactl) -> None:
    assert (await llamactl.get(ROOT)).text == "[]\n"
    sent: dict[str, Any] = {
        "backend_options": {"t": 2, "flash_attn": "auto", "port": 8123, "host": "0.0.0.0", "no_webui": True},
        "auto_restart": True,
        "max_restarts": 5,
        "restart_delay": 7,
        "on_demand_start": False,
        "idle_timeout": 0,
        "environment": {"MY_VARIABLE": "1"},
        "group": "chat",
        "command_override": "",
    }
    made = await llamactl.make("my.llama-1", **sent)
    assert made["status"] == "stopped" and made["name"] == "my.llama-1" and made["created"] > 1_600_000_000
    options = made["options"]
    assert options["backend_options"] == llamactl.options(**sent)["backend_options"]
    assert list(options["backend_options"]) == sorted(options["backend_options"])
    shown = {
        name: options.get(name, 0) for name in sent if name not in ("backend_options", "command_override")
    }
    assert shown == {name: sent[name] for name in shown}
    for path in (f"{ROOT}/my.llama-1", f"{ROOT}/my.llama-1/"):
        assert (await llamactl.get(path)).json() == made
    assert (await llamactl.get(f"{ROOT}/")).json() == [made]
    model = llamactl.services.models.get("my.llama-1")
    assert (model.options["threads"], model.options["ui"], model.origin) == (2, False, "llamactl")
    assert model.policy.restart_delay_s == 7 and model.policy.on_demand is False


async def test_start_answers_when_the_engine_is_ready_and_stop_when_it_is_gone(llamactl: Llamactl) -> None:
    await llamactl.make("tiny")
    assert (await llamactl.do("tiny", "start"))["status"] == "running"
    assert (await llamactl.do("tiny", "start"))["status"] == "running"
    answer = await llamactl.get(f"{ROOT}/tiny/proxy/health")
    assert answer.json() == {"status": "ok"}
    failure(await llamactl("DELETE", f"{ROOT}/tiny"), 409, "delete_failed")
    log = (await llamactl.get(f"{ROOT}/tiny/logs")).text
    last = await llamactl.get(f"{ROOT}/tiny/logs", params={"lines": 2})
    assert last.headers["content-type"].startswith("text/plain")
    assert last.text.count("\n") == 1 and last.text and last.text.split("\n")[0] in log
    failure(await llamactl.get(f"{ROOT}/tiny/logs", params={"lines": "x"}), 400, "invalid_parameter")
    assert (await llamactl.do("tiny", "restart"))["status"] == "running"
    assert (await llamactl.do("tiny", "stop"))["status"] == "stopped"
    assert (await llamactl.do("tiny", "stop"))["status"] == "stopped"
    failure(await llamactl.get(f"{ROOT}/tiny/proxy/health"), 503, "instance_not_running")
    assert (await llamactl("DELETE", f"{ROOT}/tiny")).status_code == 204
    failure(await llamactl.get(f"{ROOT}/tiny"), 404, "invalid_instance")
    assert llamactl.model_file.is_file()


async def test_llamacpps_own_routes_and_inst_model_names_start_it(llamactl: Llamactl) -> None:
    await llamactl.make("tiny")
    assert (await llamactl.get("/llama-cpp/tiny/props")).json()["default_generation_settings"]
    await llamactl.do("tiny", "stop")
    told = await llamactl("POST", "/v1/chat/completions", {"model": "tiny/some-model", **HELLO})
    assert told.json()["usage"]["completion_tokens"] == 4
    for path in ("/llama-cpp/tiny/v1/chat/completions", f"{ROOT}/tiny/proxy/v1/chat/completions"):
        assert (await llamactl("POST", path, HELLO)).json()["choices"]
    assert (await llamactl("POST", "/llama-cpp/tiny/tokenize", {"content": "hello"})).json()["tokens"]
    streamed = await llamactl("POST", "/llama-cpp/tiny/v1/chat/completions", {**HELLO, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream") and "[DONE]" in streamed.text
    failure(await llamactl.get("/llama-cpp/tiny/health"), 404)


async def test_an_update_replaces_every_option_and_starts_what_ran_anew(llamactl: Llamactl) -> None:
    await llamactl.make("tiny", environment={"A": "1"}, backend_options={"threads": 2}, idle_timeout=0)
    await llamactl.services.models.update("tiny", {"policy": {"pinned": True}, "aliases": ["t"]}, LOCAL_ADMIN)
    await llamactl.do("tiny", "start")
    first = llamactl.services.instances.view(1).id
    changed = await llamactl("PUT", f"{ROOT}/tiny", llamactl.options(backend_options={"ctx_size": 256}))
    assert changed.status_code == 200 and changed.json()["status"] == "running"
    assert llamactl.services.instances.view(1).id != first
    model = llamactl.services.models.get("tiny")
    assert model.options["context_length"] == 256 and "threads" not in model.options and not model.env
    assert model.policy.pinned and model.aliases == ("t",) and model.policy.idle_timeout_s is None
    props = (await llamactl.get("/llama-cpp/tiny/props")).json()
    assert props["default_generation_settings"]["n_ctx"] == 256
    failure(await llamactl("PUT", f"{ROOT}/tiny", {"backend_options": {}}), 400, "invalid_request")
    wrong = llamactl.options(backend_options={"ctx_size": "many"})
    failure(await llamactl("PUT", f"{ROOT}/tiny", wrong), 400, "update_failed")
    assert llamactl.services.models.get("tiny") == model
    failure(await llamactl("PUT", f"{ROOT}/none", llamactl.options()), 404, "invalid_instance")


async def test_what_is_shown_can_be_sent_back_and_changes_nothing(llamactl: Llamactl) -> None:
    env = {"MY_TOKEN": "sesame"}
    made = await llamactl.make(
        "tiny", environment=env, backend_options={"extra_args": {"log-file": "/tmp/x"}}
    )
    assert "sesame" not in str(made)
    before = llamactl.services.models.get("tiny")
    again = await llamactl("PUT", f"{ROOT}/tiny", made["options"])
    assert again.json()["options"] == made["options"]
    after = llamactl.services.models.get("tiny")
    assert (after.options, after.env, after.extra_args) == (before.options, before.env, before.extra_args)
    failure(await llamactl("POST", f"{ROOT}/other", made["options"]), 400, "invalid_request")


async def test_models_made_elsewhere_are_instances_too(llamactl: Llamactl) -> None:
    new = NewModel(
        {"path": str(llamactl.model_file)},
        name="org/tiny:Q8",
        options={"context_length": 512, "parallel_slots": 1, "mmap": False, "draft": 3},
        extra_args=("--seed", "7", "--no-perf"),
        policy={"idle_timeout_s": 120},
    )
    await llamactl.services.models.create(new, LOCAL_ADMIN)
    (shown,) = (await llamactl.get(ROOT)).json()
    assert shown["options"]["idle_timeout"] == 2
    assert shown["options"]["backend_options"] == {
        "ctx_size": 512,
        "draft_max": 3,
        "extra_args": {"no_perf": "true", "seed": "7"},
        "model": str(llamactl.model_file),
        "no_mmap": True,
        "parallel": 1,
    }
    for name in ("org/tiny:Q8", "org%2Ftiny:Q8", "org%2Ftiny%3AQ8"):
        assert (await llamactl.get(f"{ROOT}/{name}")).json()["name"] == "org/tiny:Q8"
        assert (await llamactl.do(name, "start"))["status"] == "running"
        assert (await llamactl.get(f"{ROOT}/{name}/proxy/health")).status_code == 200
        assert (await llamactl.get(f"/llama-cpp/{name}/props")).status_code == 200
    await llamactl.do("org/tiny:Q8", "stop")
    assert (await llamactl("DELETE", f"{ROOT}/org%2Ftiny:Q8")).status_code == 204


async def test_an_instance_changed_by_another_way_is_shown_as_it_is_now(llamactl: Llamactl) -> None:
    await llamactl.make("tiny", backend_options={"ngl": 0})
    await llamactl.services.models.update("tiny", {"options": {"threads": 3}}, LOCAL_ADMIN)
    shown = (await llamactl.get(f"{ROOT}/tiny")).json()["options"]["backend_options"]
    assert shown["threads"] == 3 and shown["gpu_layers"] == 0 and "ngl" not in shown


async def test_a_failed_start_says_why_and_the_status_is_failed(llamactl: Llamactl) -> None:
    broken = llamactl.model_file.parent / "broken.gguf"
    await llamactl.make("tiny", backend_options={"model": str(broken)})
    told = failure(await llamactl("POST", f"{ROOT}/tiny/start"), 404, "start_failed")
    assert "broken.gguf" in told["details"]
    await llamactl.make("other", backend_options={"not_a_flag": True})
    assert "--not-a-flag" in failure(await llamactl("POST", f"{ROOT}/other/start"), 400)["details"]
    assert (await llamactl.get(f"{ROOT}/other")).json()["status"] == "failed"


async def test_an_instance_of_vllm_and_one_in_a_container_are_models_of_that_kind(llamactl: Llamactl) -> None:
    sent = {
        "backend_type": "vllm",
        "backend_options": {"model": "org/model", "max_model_len": 4096, "tensor_parallel_size": 2},
        "docker_enabled": True,
        "command_override": "/opt/vllm",
    }
    made = await llamactl("POST", f"{ROOT}/big", sent)
    assert made.status_code == 201, made.text
    options = made.json()["options"]
    assert {name: options[name] for name in sent} == sent
    model = llamactl.services.models.get("big")
    assert (model.engine, model.runtime, model.engine_command) == ("vllm", "docker", None)
    assert model.source.repo == "org/model" and model.options["context_length"] == 4096
    failure(await llamactl.get("/llama-cpp/big/props"), 404)
    plain = {**sent, "docker_enabled": False, "command_override": "/opt/venv/bin/vllm"}
    assert (await llamactl("PUT", f"{ROOT}/big", plain)).status_code == 200
    model = llamactl.services.models.get("big")
    assert (model.runtime, model.engine_command) == ("process", "/opt/venv/bin/vllm")


async def test_who_only_manages_may_not_say_what_runs_on_the_host(make_llamactl: MakeLlamactl) -> None:
    llamactl = await make_llamactl(host="0.0.0.0")
    key = await llamactl.key(Role.MANAGER)
    for more in (
        {"command_override": "/bin/sh"},
        {"environment": {"LD_PRELOAD": "/tmp/x.so"}},
        {"backend_options": {"model": "/etc/passwd"}},
        {"backend_options": {"log_file": "/etc/cron.d/x"}},
        {"backend_options": {"unknown": "1"}},
    ):
        sent = await llamactl("POST", f"{ROOT}/a", llamactl.options(**more), headers=key)
        failure(sent, 403, "permission_denied")
    assert (await llamactl("POST", f"{ROOT}/a", llamactl.options(), headers=key)).status_code == 201


async def test_files_of_the_hub_are_fetched_at_a_start(
    make_llamactl: MakeLlamactl, hub_server: HubServer, demo_model: Path
) -> None:
    files: dict[str, bytes | Path] = {"demo-Q8_0.gguf": demo_model, "other-Q4_0.gguf": b"none"}
    hub_server.add_repo("org/demo-GGUF", files, private=True, token="hf_own")
    llamactl = await make_llamactl(offline=False, hf_endpoint=hub_server.endpoint)
    options = {"hf_repo": "org/demo-GGUF", "hf_file": "demo-Q8_0.gguf", "model": ""}
    await llamactl.make("closed", backend_options=options)
    told = failure(await llamactl("POST", f"{ROOT}/closed/start"), 404, "start_failed")
    assert "org/demo-GGUF" in told["details"]
    made = await llamactl.make("open", backend_options={**options, "hf_token": "hf_own"})
    assert "hf_own" not in str(made)
    assert made["options"]["backend_options"]["hf_repo"] == "org/demo-GGUF"
    assert (await llamactl.do("open", "start"))["status"] == "running"
    assert (await llamactl.do("closed", "start"))["status"] == "running"


async def test_an_engine_that_dies_is_restarting_and_then_runs_again(llamactl: Llamactl) -> None:
    await llamactl.make("tiny", restart_delay=1, idle_timeout=0)
    await llamactl.do("tiny", "start")
    view = llamactl.services.instances.view(1)
    assert view.pid is not None
    os.kill(view.pid, signal.SIGKILL)
    seen: list[str] = []
    async with asyncio.timeout(60):
        while seen[-1:] != ["running"] or "restarting" not in seen:
            status = (await llamactl.get(f"{ROOT}/tiny")).json()["status"]
            seen += [status] if seen[-1:] != [status] else []
            await asyncio.sleep(0.02)
    assert "failed" not in seen and "stopped" not in seen
    await llamactl.make("once", auto_restart=False, idle_timeout=0, backend_options={"ctx_size": 256})
    await llamactl.do("once", "start")
    os.kill(llamactl.services.instances.view(2).pid or 0, signal.SIGKILL)
    async with asyncio.timeout(60):
        while (await llamactl.get(f"{ROOT}/once")).json()["status"] != "failed":
            await asyncio.sleep(0.02)


async def test_the_home_folder_is_put_in(llamactl: Llamactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(llamactl.model_file.parent))
    options = {"model": "~/tiny-Q8_0.gguf", "lora": ["~/a.gguf"]}
    made = await llamactl.make("tiny", backend_options=options)
    assert made["options"]["backend_options"]["model"] == "~/tiny-Q8_0.gguf"
    model = llamactl.services.models.get("tiny")
    assert model.source.path == str(llamactl.model_file)
    assert model.options["lora"] == [str(llamactl.model_file.parent / "a.gguf")]
    await llamactl.services.models.update("tiny", {"options": {"lora": None}}, LOCAL_ADMIN)
    assert (await llamactl.do("tiny", "start"))["status"] == "running"


@pytest.mark.parametrize(
    ("name", "options", "status", "word"),
    [
        ("bad%20name", {}, 400, "invalid_instance_name"),
        ("x" * 51, {}, 400, "invalid_instance_name"),
        ("a%2Fb", {}, 400, "invalid_instance_name"),
        ("a..%2F..%2Fetc", {}, 400, "invalid_instance_name"),
        ("running", {}, 400, "invalid_request"),
        ("a", {"backend_type": "x"}, 400, "invalid_request"),
        ("a", {"backend_type": None}, 400, "invalid_request"),
        ("a", {"backend_type": "mlx_lm"}, 501, "create_failed"),
        ("a", {"backend_options": []}, 400, "invalid_request"),
        ("a", {"backend_options": {"extra_args": []}}, 400, "invalid_request"),
        ("a", {"backend_options": {"model_url": "http://x/y.gguf"}}, 501, "create_failed"),
        ("a", {"backend_options": {"hf_repo": "no-slash"}}, 400, "create_failed"),
        ("a", {"backend_options": {"hf_repo": "a/b/c/d"}}, 400, "create_failed"),
        ("a", {"backend_options": {"model": "../../etc/passwd"}}, 400, "create_failed"),
        ("a", {"max_restarts": "3"}, 400, "invalid_request"),
        ("a", {"auto_restart": 1}, 400, "invalid_request"),
        ("a", {"environment": {"A B": "c"}}, 400, "invalid_request"),
        ("a", {"environment": {"LLAMA_API_KEY": "c"}}, 400, "create_failed"),
        ("a", {"nodes": ["far"]}, 404, "create_failed"),
        ("a", {"environment": {"A": "********"}}, 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_an_instance_is_refused_with_llamactls_words(
    llamactl: Llamactl, name: str, options: dict[str, Any], status: int, word: str
) -> None:
    body = {"backend_type": "llama_cpp", "backend_options": {"model": "tiny-Q8_0.gguf"}, **options}
    told = failure(await llamactl("POST", f"{ROOT}/{name}", body), status)
    assert told["error"] == word, told
    assert not llamactl.services.models.all()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"backend_type": NaN}', b"\xff"])
async def test_bodies_that_are_none_are_refused(llamactl: Llamactl, body: bytes) -> None:
    failure(await llamactl("POST", f"{ROOT}/a", content=body), 400, "invalid_request")


async def test_names_are_taken_once_and_limits_hold(make_llamactl: MakeLlamactl) -> None:
    llamactl = await make_llamactl(max_models=2, max_running=1)
    await llamactl.make("a", idle_timeout=0)
    failure(await llamactl("POST", f"{ROOT}/a", llamactl.options()), 409, "create_failed")
    await llamactl.make("b", backend_options={"ctx_size": 256})
    told = failure(await llamactl("POST", f"{ROOT}/c", llamactl.options()), 409, "create_failed")
    assert "2 models" in told["details"]
    await llamactl.do("a", "start")
    await llamactl.do("b", "start")
    assert {i["name"]: i["status"] for i in (await llamactl.get(ROOT)).json()} == {
        "a": "stopped",
        "b": "running",
    }


async def test_one_of_a_full_group_leaves_for_another_of_it(make_llamactl: MakeLlamactl) -> None:
    llamactl = await make_llamactl(group_limits="chat=1")
    await llamactl.make("a", group="chat", idle_timeout=0)
    await llamactl.make("b", group="chat", backend_options={"ctx_size": 256})
    await llamactl.make("other", group="not a group!", backend_options={"ctx_size": 128})
    for name in ("a", "other", "b"):
        await llamactl.do(name, "start")
    listed = (await llamactl.get(ROOT)).json()
    assert [(i["name"], i["status"]) for i in listed] == [
        ("a", "stopped"),
        ("b", "running"),
        ("other", "running"),
    ]
    assert "group" not in listed[2]["options"]


async def test_with_an_idle_timeout_it_stops_by_itself_and_without_one_it_is_kept(llamactl: Llamactl) -> None:
    await llamactl.make("kept", idle_timeout=0)
    await llamactl.make("passing", idle_timeout=5)
    for name in ("kept", "passing"):
        await llamactl.do(name, "start")
    views = {view.model_name: view for view in llamactl.services.instances.views()}
    assert views["kept"].expires_at is None and views["passing"].expires_at is not None


async def test_router_mode_is_kept_and_its_start_is_refused(llamactl: Llamactl) -> None:
    made = await llamactl("POST", f"{ROOT}/r", {"backend_type": "llama_cpp", "preset_ini": "[a]\nctx = 1\n"})
    assert made.status_code == 201 and made.json()["options"]["preset_ini"] == "[a]\nctx = 1\n"
    assert (
        "names no model" in failure(await llamactl("POST", f"{ROOT}/r/start"), 409, "start_failed")["details"]
    )
    failure(await llamactl.get("/api/v1/llama-cpp/r/models"), 501)
    failure(await llamactl("POST", "/api/v1/llama-cpp/r/models/a%2Fb/load", {"model": "a/b"}), 501)
    failure(await llamactl.get("/llama-cpp/r/props"), 409, "instance_start_failed")
    await llamactl.make("tiny")
    listed = (await llamactl.get("/api/v1/llama-cpp/tiny/models")).json()
    assert [(m["id"], m["status"]["value"]) for m in listed["data"]] == [("tiny", "unloaded")]


async def test_keys_for_single_instances_hold_over_a_rename(make_llamactl: MakeLlamactl) -> None:
    llamactl = await make_llamactl(host="0.0.0.0")
    admin = await llamactl.key(Role.ADMIN)
    for name in ("a", "b"):
        sent = await llamactl("POST", f"{ROOT}/{name}", llamactl.options(), headers=admin)
        assert sent.status_code == 201
    wanted = {"name": "app", "permission_mode": "per_instance", "instance_ids": [1]}
    made = (await llamactl("POST", "/api/v1/auth/keys", wanted, headers=admin)).json()
    key = {"X-API-Key": made.pop("key")}
    assert made["permission_mode"] == "per_instance" and made["expires_at"] is None
    (listed,) = (await llamactl.get("/api/v1/auth/keys", headers=admin)).json()
    assert listed == made
    shown = await llamactl.get(f"/api/v1/auth/keys/{made['id']}/permissions", headers=admin)
    assert shown.json() == [{"instance_id": 1, "instance_name": "a"}]
    not_let_in(await llamactl.get(ROOT, headers=key), "Invalid API key")
    await llamactl.services.models.update("a", {"name": "renamed"}, LOCAL_ADMIN)
    asked = await llamactl("POST", "/v1/chat/completions", {"model": "renamed", **HELLO}, headers=key)
    assert asked.status_code == 200
    refused = await llamactl("POST", "/v1/chat/completions", {"model": "b", **HELLO}, headers=key)
    assert refused.status_code == 403
    failure(await llamactl.get("/llama-cpp/b/props", headers=key), 403, "permission_denied")
    renamed = await llamactl.get(f"/api/v1/auth/keys/{made['id']}/permissions", headers=admin)
    assert renamed.json() == [{"instance_id": 1, "instance_name": "renamed"}]
    gone = await llamactl("DELETE", f"/api/v1/auth/keys/{made['id']}", headers=admin)
    assert gone.status_code == 204
    not_let_in(await llamactl.get("/llama-cpp/renamed/props", headers=key))


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "invalid_name"),
        ({"name": "a" * 101, "permission_mode": "allow_all"}, "invalid_name"),
        ({"name": "a"}, "invalid_permission_mode"),
        ({"name": "a", "permission_mode": "none"}, "invalid_permission_mode"),
        ({"name": "a", "permission_mode": "per_instance"}, "missing_permissions"),
        ({"name": "a", "permission_mode": "per_instance", "instance_ids": [77]}, "invalid_instance_id"),
        ({"name": "a", "permission_mode": "allow_all", "expires_at": 5}, "invalid_expires_at"),
        ({"name": "a", "permission_mode": "allow_all", "expires_at": 10**30}, "invalid_expires_at"),
        ({"name": "a", "permission_mode": "allow_all", "instance_ids": "1"}, "invalid_request"),
    ],
)
async def test_keys_that_cannot_be_made_are_refused(llamactl: Llamactl, body: Any, word: str) -> None:
    failure(await llamactl("POST", "/api/v1/auth/keys", body), 400, word)


async def test_keys_that_manage_are_not_among_those_for_inference(llamactl: Llamactl) -> None:
    await llamactl.key(Role.MANAGER)
    assert (await llamactl.get("/api/v1/auth/keys")).json() == []
    failure(await llamactl.get("/api/v1/auth/keys/1"), 404, "not_found")
    failure(await llamactl("DELETE", "/api/v1/auth/keys/1"), 404)
    failure(await llamactl.get("/api/v1/auth/keys/one"), 400, "invalid_id")


async def test_the_server_tells_of_itself_without_secrets(make_llamactl: MakeLlamactl) -> None:
    llamactl = await make_llamactl(hf_token="hf_sesame", upstream_api_key="open-sesame")
    version = await llamactl.get("/api/v1/version")
    assert version.text.startswith("Version: ") and version.text.count("\n") == 3
    config = (await llamactl.get("/api/v1/config")).json()
    assert "sesame" not in str(config) and config["instances"]["max_running_instances"] == 4
    assert (await llamactl.get("/api/v1/nodes")).json() == {"main": {"address": ""}}
    assert (await llamactl.get("/api/v1/nodes/main")).json() == {"address": ""}
    failure(await llamactl.get("/api/v1/nodes/far"), 404, "not_found")


async def test_the_program_that_would_be_used_is_asked(make_llamactl: MakeLlamactl, tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text('#!/bin/sh\ncase "$1" in --version) echo "version: 42 (mine)";; *) exit 3;; esac\n')
    program.chmod(0o755)
    llamactl = await make_llamactl(llama_server_command=str(program))
    assert (await llamactl.get("/api/v1/backends/llama-cpp/version")).text == "version: 42 (mine)\n"
    told = failure(await llamactl.get("/api/v1/backends/llama-cpp/devices"), 502, "command failed")
    assert told["details"].startswith("Failed to get devices")


@pytest.mark.parametrize(
    ("backend", "command", "options"),
    [
        (
            "llama-cpp",
            "llama-server -m /models/a.gguf -c 4096 -ngl 99 --host 0.0.0.0 --port 8080 --no-mmap",
            {"model": "/models/a.gguf", "ctx_size": 4096, "gpu_layers": 99, "host": "0.0.0.0", "port": 8080,
             "no_mmap": True},
        ),
        ("llama-cpp", "-hf org/model:Q4_K_M --seed -1 --new-flag x --bare",
         {"hf_repo": "org/model:Q4_K_M", "seed": -1, "extra_args": {"new_flag": "x", "bare": "true"}}),
        ("llama-cpp", '/opt/llama-server --model "/a b/c.gguf" \\\n --lora a --lora b',
         {"model": "/a b/c.gguf", "lora": ["a", "b"]}),
        ("llama-cpp", "llama-server -m a.gguf --api-key sesame", {"model": "a.gguf"}),
        ("vllm", "vllm serve org/model --max-model-len 4096 --gpu-memory-utilization=0.5 --enforce-eager",
         {"model": "org/model", "max_model_len": 4096, "gpu_memory_utilization": 0.5, "enforce_eager": True}),
        ("mlx", "mlx_lm.server --model a/b --port 9 --temp 0.5 --trust-remote-code --other 1",
         {"model": "a/b", "port": 9, "temp": 0.5, "trust_remote_code": True, "extra_args": {"other": "1"}}),
    ],
)  # fmt: skip
async def test_a_pasted_command_line_becomes_options(
    llamactl: Llamactl, backend: str, command: str, options: dict[str, Any]
) -> None:
    answer = await llamactl("POST", f"/api/v1/backends/{backend}/parse-command", {"command": command})
    assert answer.json()["backend_options"] == options


@pytest.mark.parametrize("backend", ["llama-cpp", "vllm", "mlx"])
async def test_command_lines_that_cannot_be_read_are_refused(llamactl: Llamactl, backend: str) -> None:
    path = f"/api/v1/backends/{backend}/parse-command"
    failure(await llamactl("POST", path, content=b"{"), 400, "invalid_request")
    failure(await llamactl("POST", path, {"command": "  "}), 400, "invalid_command")
    failure(await llamactl("POST", path, {"command": 'a --b "c'}), 400)
    failure(await llamactl("POST", path, {"command": "---x"}), 400)
