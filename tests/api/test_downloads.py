"""Downloads, jobs and the hub over HTTP, against the test hub."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi, problem
from tests.hub.server import HubServer


@pytest.fixture
async def online(make_api: MakeApi, hub_server: HubServer, demo_model: Path) -> Api:
    """An Ostler whose hub is the test hub, with one repo in it."""
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": demo_model, "README.md": b"# Tiny"})
    return await make_api(offline=False, hf_endpoint=hub_server.endpoint)


async def test_a_repo_is_found_shown_planned_and_pulled_as_a_job(online: Api) -> None:
    hits = (await online.get("/hub/search", q="tiny")).json()
    assert [hit["repo"] for hit in hits["items"]] == ["org/tiny-GGUF"]
    repo = (await online.get("/hub/repos/org/tiny-GGUF")).json()
    assert repo["variants"][0]["tag"] == "Q8_0"
    plan = (await online.post("/downloads/plan", {"spec": "org/tiny-GGUF:Q8_0"})).json()
    assert plan["need_bytes"] == plan["total_bytes"] > 0 and plan["fits_disk"] is True
    started = await online.post("/downloads", {"spec": "org/tiny-GGUF:Q8_0"})
    assert started.status_code == 202, started.text
    job = await online.services.jobs.wait(started.json()["id"], 30)
    shown = (await online.get(f"/jobs/{job.id}")).json()
    assert (shown["state"], shown["kind"]) == ("succeeded", "download")
    assert (await online.get("/jobs", state="succeeded")).json()["total"] == 1
    listed = (await online.get("/files", repo="org/tiny-GGUF")).json()["items"]
    assert len(listed) == 1 and Path(listed[0]["path"]).exists()
    made = await online.post("/models", {"name": "tiny", "source": {"hub": "org/tiny-GGUF:Q8_0"}})
    assert made.status_code == 201, made.text
    assert (await online.get(f"/files/{listed[0]['id']}")).json()["used_by"] == ["tiny"]
    assert (await online.get("/models")).json()["items"][0]["file_set"]["id"] == listed[0]["id"]
    problem(await online.post(f"/jobs/{job.id}/retry"), 409)
    assert (await online("DELETE", f"/jobs/{job.id}")).status_code == 204
    problem(await online.get(f"/jobs/{job.id}"), 404, "job_not_found")
    assert (await online.post("/models/tiny/start")).status_code == 200
    refused = problem(await online("DELETE", f"/files/{listed[0]['id']}"), 409, "file_in_use")
    assert "tiny" in refused["detail"] and Path(listed[0]["path"]).exists()
    assert (await online.post("/models/tiny/stop")).status_code == 200
    deleted = await online("DELETE", f"/files/{listed[0]['id']}")
    assert deleted.status_code == 200 and deleted.json()["freed_bytes"] > 0
    assert not Path(listed[0]["path"]).exists()


async def test_a_model_is_inspected_without_downloading_it(online: Api, hub_server: HubServer) -> None:
    told = (await online.get("/hub/inspect", spec="org/tiny-GGUF:Q8_0")).json()
    assert told["facts"]["architecture"] == "llama" and told["facts"]["quantization"] == "Q8_0"
    assert told["size_bytes"] == told["files"][0]["size_bytes"] > told["fetched_bytes"] > 0
    assert "gguf" not in told and told["requests"] == len(hub_server.requests_for("*.gguf"))
    problem(await online.get("/hub/inspect", spec="no spec"), 422)
    problem(await online.get("/hub/inspect", spec="org/tiny-GGUF:Q2_K"), 404)
    hub_server.add_repo("org/other-GGUF", {"other-Q8_0.gguf": b"GGUF" + bytes(1 << 20)})
    problem(await online.get("/hub/inspect", spec="org/other-GGUF"), 422, "broken_file")
    hub_server.faults.no_ranges("*.gguf")
    problem(await online.get("/hub/inspect", spec="org/other-GGUF"), 502, "ranges_refused")


async def test_a_download_is_cancelled(online: Api, hub_server: HubServer) -> None:
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    started = (await online.post("/downloads", {"spec": "org/tiny-GGUF"})).json()
    again = (await online.post("/downloads", {"spec": "org/tiny-GGUF"})).json()
    assert again["id"] == started["id"]
    assert await asyncio.to_thread(stalled.reached.wait, 20)
    cancelled = await online.post(f"/jobs/{started['id']}/cancel")
    stalled.release()
    assert cancelled.status_code == 200
    job = await online.services.jobs.wait(started["id"], 20)
    assert job.state == "cancelled"


async def test_unknown_repos_and_bad_specs_are_told(online: Api) -> None:
    for spec in ("org/nothing", "org/tiny-GGUF:Q2_K"):
        assert (await online.post("/downloads", {"spec": spec})).status_code == 404, spec
        problem(await online.post("/downloads/plan", {"spec": spec}), 404)
    for spec in ("", "nothing", "../../etc/passwd", "org/..", "a/b/c", "org/tiny-GGUF:../x", "x" * 600):
        problem(await online.post("/downloads", {"spec": spec}), 422)
    problem(await online.get("/hub/repos/org/nothing"), 404)
    problem(await online.get("/hub/repos/%2e%2e/x"), 422)
    problem(await online.get("/hub/search"), 422)
    problem(await online.get("/hub/search", q="x", limit=0), 422)
    problem(await online.get("/jobs/none"), 404)
    problem(await online.get("/jobs", state="dreaming"), 422)


async def test_offline_nothing_is_asked_of_the_hub(make_api: MakeApi, hub_server: HubServer) -> None:
    api = await make_api(offline=True, hf_endpoint=hub_server.endpoint)
    for answer in (
        await api.get("/hub/search", q="tiny"),
        await api.get("/hub/repos/org/tiny-GGUF"),
        await api.get("/hub/inspect", spec="org/tiny-GGUF"),
        await api.post("/downloads/plan", {"spec": "org/tiny-GGUF"}),
    ):
        problem(answer, 503, "offline")
    assert hub_server.requests_for("*") == []


async def test_a_user_may_look_at_jobs_and_not_download(online: Api) -> None:
    user = await online.as_role(Role.USER)
    assert (await online("GET", "/jobs", headers=user)).status_code == 200
    problem(await online("POST", "/downloads", {"spec": "org/tiny-GGUF"}, headers=user), 403)
