"""Cortex's system pages: the host, its GPUs, throughput, upstreams, the registry and each model's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.cortex.shapes import envelope
from tests.api.dialects.cortex.test_usage import put

PATHS = (
    "/admin/system/summary",
    "/admin/system/throughput",
    "/admin/system/gpus",
    "/admin/system/host/summary",
    "/admin/system/host/trends",
    "/admin/system/capabilities",
    "/admin/upstreams",
    "/admin/models/registry",
    "/admin/models/metrics",
)


@pytest.mark.parametrize("path", PATHS)
async def test_it_is_for_administrators(guarded: Api, path: str) -> None:
    envelope(await guarded.get(f"/{path}"), 401)
    envelope(await guarded("GET", f"/{path}", headers=await guarded.as_role(Role.MANAGER)), 403, "forbidden")
    admin = await guarded.as_role(Role.ADMIN)
    assert (await guarded("GET", f"/{path}", headers=admin)).status_code == 200


async def test_the_host_is_told_as_it_is(api: Api) -> None:
    summary = (await api.get("//admin/system/summary")).json()
    assert summary["cpu_count"] >= 1 and 0 < summary["mem_used_mb"] < summary["mem_total_mb"]
    assert 0 < summary["disk_used_gb"] < summary["disk_total_gb"]
    host = (await api.get("//admin/system/host/summary")).json()
    assert 0 <= host["cpu_util_pct"] <= 100 and 0 < host["disk_used_pct"] < 100 and host["net_rx_bps"] >= 0
    trends = (await api.get("//admin/system/host/trends", minutes=500, step_s=1)).json()
    assert len(trends["cpu_util_pct"]) == len(trends["mem_used_mb"]) == 1
    assert len(trends["cpu_per_core_pct"]) == summary["cpu_count"]
    assert all(set(both) == {"read", "write"} for both in trends["disk_rw_bps"].values())
    assert all(set(both) == {"rx", "tx"} for both in trends["net_per_iface_bps"].values())
    told = (await api.get("//admin/system/capabilities")).json()
    assert told["prometheus"]["up"] is False and told["selectedProviders"]["host"] == "psutil"
    native = (await api.get("/host/series")).json()
    assert native["step_s"] == 15 and native["points"][0]["memory_total_bytes"] > 0
    assert (await api.get("/host/series", minutes=61)).status_code == 422


async def test_gpus_are_listed_with_what_is_known_of_them(make_api: MakeApi) -> None:
    api = await make_api(devices="2x24GiB")
    gpus = (await api.get("//admin/system/gpus")).json()
    assert [(gpu["index"], gpu["mem_total_mb"]) for gpu in gpus] == [(0, 24 * 1024), (1, 24 * 1024)]
    assert all(gpu["utilization_pct"] is None and gpu["architecture"] is None for gpu in gpus)
    assert (await api.get("//admin/system/summary")).json()["gpus"] == 2


async def test_throughput_is_that_of_the_last_minute(api: Api) -> None:
    at = api.services.clock.now()
    nothing = (await api.get("//admin/system/throughput")).json()
    assert (nothing["req_per_sec"], nothing["latency_p50_ms"], nothing["samples"]) == (0, 0, 0)
    await put(api, {"at": at, "prompt_tokens": 600, "completion_tokens": 60, "first_token_s": 0.1})
    told = (await api.get("//admin/system/throughput")).json()
    assert told["req_per_sec"] == pytest.approx(1 / 60)
    assert (told["prompt_tokens_per_sec"], told["generation_tokens_per_sec"]) == (10, 1)
    assert (told["latency_p50_ms"], told["ttft_p95_ms"]) == (500, 100)


@pytest.fixture
async def running(api: Api, model_file: Path) -> Api:
    await api.model(model_file, "tiny", dialect_data={"cortex": {"name": "Tiny One"}})
    assert (await api.post("/models/tiny/start")).json()["state"] == "running"
    return api


async def test_a_running_model_tells_its_numbers_and_stands_in_the_registry(running: Api) -> None:
    (numbers,) = (await running.get("//admin/models/metrics")).json()
    assert (numbers["served_name"], numbers["model_name"]) == ("tiny", "Tiny One")
    assert (numbers["status"], numbers["engine_type"], numbers["error"]) == ("running", "llamacpp", None)
    assert (numbers["num_requests_running"], numbers["num_requests_waiting"]) == (0, 0)
    assert numbers["prompt_tokens_total"] == 0 and numbers["gpu_cache_usage_pct"] == 0
    assert numbers["num_requests_swapped"] is None and numbers["request_latency_p50_ms"] is None
    registry = (await running.get("//admin/models/registry")).json()
    assert registry["tiny"]["engine_type"] == "llamacpp" and registry["tiny"]["task"] == "generate"
    url = registry["tiny"]["url"]
    told = (await running.get("//admin/upstreams")).json()
    assert told["meta"][url]["served_names"] == ["tiny"] and told["health"][url]["ok"] is True
    assert told["circuit_breakers"][url] == {"fail": 0, "open_until": 0.0} and told["registry"] == registry
    refreshed = (await running.post("//admin/upstreams/refresh-health")).json()
    assert refreshed == {"results": [{"url": url, "status": "up", "elapsed_sec": None}]}
    envelope(await running("DELETE", "//admin/models/registry/tiny"), 409)
    exposed = await running.get("/instances/exposition")
    assert 'llamacpp:requests_processing{model="tiny"} 0.0' in exposed.text
    assert (await running.get("/instances/metrics")).json()["items"][0]["told_by"] == "gateway"
    gauges = (await running.get("//metrics")).text
    assert 'ostler_instance_up{engine="llamacpp",model="tiny"} 1.0' in gauges
    await running.post("/models/tiny/stop")
    assert (await running.get("//admin/models/registry")).json() == {}
    assert (await running.get("//admin/models/metrics")).json() == []


async def test_a_model_that_embeds_by_its_options_is_told_to_embed(api: Api, model_file: Path) -> None:
    made = await api.model(model_file, "vectors", options={"embeddings": True, "context_length": 512})
    kept = await api.post(f"//admin/recipes/from-model/{made.id}", {"name": "kept"})
    assert kept.json()["task"] == "embed" == (await api.get("//admin/recipes")).json()[0]["task"]
    await api.post("/models/vectors/start")
    told = (await api.get("//admin/upstreams")).json()
    assert [meta["category"] for meta in told["meta"].values()] == ["embed"]
    assert told["registry"]["vectors"]["task"] == "embed"


async def test_entries_are_made_changed_and_taken_out(api: Api, model_file: Path) -> None:
    entry = {"served_name": "org/big:Q4", "url": "http://127.0.0.1:9/v1", "task": "embedding"}
    assert (await api.post("//admin/models/registry", entry)).json() == {"status": "ok"}
    assert (await api.get("//admin/models/registry")).json()["org/big:Q4"] == {
        "url": "http://127.0.0.1:9", "task": "embed", "engine_type": "vllm", "request_defaults_json": None,
        "vllm_v1_enabled": None,
    }  # fmt: skip
    again = await api.post("//admin/models/registry", {**entry, "url": "http://127.0.0.1:19"})
    assert again.status_code == 200
    refreshed = (await api.post("//admin/upstreams/refresh-health", {})).json()["results"]
    assert refreshed == [{"url": "http://127.0.0.1:19", "status": "error", "elapsed_sec": None}]
    meta = (await api.get("//admin/upstreams")).json()["meta"]["http://127.0.0.1:19"]
    assert meta["category"] == "embed" and meta["consecutive_fails"] >= 1
    assert meta["history"][-1]["ok"] is False and meta["breaker"]["state"] == "CLOSED"
    unknown = await api.post("//admin/upstreams/refresh-health", {"urls": ["http://169.254.169.254/x"]})
    assert unknown.json()["results"][0]["status"] == "unknown"
    assert (await api("DELETE", "//admin/models/registry/org/big:Q4")).json() == {"status": "ok"}
    envelope(await api("DELETE", "//admin/models/registry/org/big:Q4"), 404, "not_found")
    assert (await api.get("//admin/models/registry")).json() == {}
    await api.model(model_file, "mine")
    envelope(await api.post("//admin/models/registry", {**entry, "served_name": "mine"}), 409)


@pytest.mark.parametrize(
    "change",
    [
        {"served_name": ""},
        {"url": " "},
        {"url": "gpu-1:8000"},
        {"url": "http://gpu-1:0"},
        {"url": "file:///etc/passwd"},
        {"task": "dance"},
        {"served_name": "../up"},
        {"engine_type": "moon"},
    ],
)
async def test_what_is_no_entry_is_refused(api: Api, change: dict[str, Any]) -> None:
    body = {"served_name": "big", "url": "http://gpu-1:8000", "task": "generate", **change}
    envelope(await api.post("//admin/models/registry", body), 400, "invalid_registry_entry")
