"""Downloads by way of BodhiApp's API are jobs that every door sees."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.bodhi.shapes import bodhi_error
from tests.hub.server import HubServer

PULL = "//bodhi/v1/modelfiles/pull"
TINY = {"repo": "org/tiny-GGUF", "filename": "tiny-Q8_0.gguf"}


@pytest.fixture
async def online(make_api: MakeApi, hub_server: HubServer, demo_model: Path) -> Api:
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": demo_model})
    hub_server.add_repo("org/gated-GGUF", {"a.gguf": demo_model}, gated="manual")
    return await make_api(offline=False, hf_endpoint=hub_server.endpoint, download_retries=0)


async def test_two_doors_that_want_one_file_have_one_download(online: Api, hub_server: HubServer) -> None:
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    native = (await online.post("/downloads", {"spec": "org/tiny-GGUF:Q8_0"})).json()
    assert await asyncio.to_thread(stalled.reached.wait, 10)
    answer = await online.post(PULL, TINY)
    assert (answer.status_code, answer.json()["id"]) == (200, native["id"])
    stalled.release()
    await online.services.jobs.wait(native["id"], 30)
    seen = (await online.get(f"{PULL}/{native['id']}")).json()
    assert (seen["status"], seen["filename"], seen["progress"]) == ("completed", "tiny-Q8_0.gguf", 100)
    assert (await online.get("//bodhi/v1/models")).json()["data"][0]["alias"] == "org/tiny-GGUF:Q8_0"


async def test_many_that_ask_at_once_have_one_download(online: Api, hub_server: HubServer) -> None:
    stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    answers = await asyncio.gather(*(online.post(PULL, TINY) for _ in range(8)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert {answer.status_code for answer in answers} <= {200, 201}
    stalled.release()
    await online.services.jobs.wait(answers[0].json()["id"], 30)


async def test_what_the_hub_refuses_is_said_in_bodhis_words(online: Api, hub_server: HubServer) -> None:
    gated = {"repo": "org/gated-GGUF", "filename": "a.gguf"}
    bodhi_error(await online.post(PULL, gated), 403, "hub_api_error-gated_access")
    nothing = {"repo": "org/none", "filename": "a.gguf"}
    bodhi_error(await online.post(PULL, nothing), 404, "hub_api_error-not_exists")
    hub_server.stop()
    bodhi_error(await online.post(PULL, TINY), 502, "hub_api_error-transport")
    assert (await online.get(PULL)).json()["total"] == 0


async def test_offline_nothing_is_pulled(api: Api) -> None:
    bodhi_error(await api.post(PULL, TINY), 503, "offline")


async def test_a_full_disk_is_told_before_the_first_byte(
    make_api: MakeApi, hub_server: HubServer, demo_model: Path
) -> None:
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": demo_model})
    api = await make_api(offline=False, hf_endpoint=hub_server.endpoint, disk_reserve_bytes=2**60)
    bodhi_error(await api.post(PULL, TINY), 507, "disk_full")


async def test_who_ends_the_download_of_another_needs_to_be_a_manager(
    online: Api, hub_server: HubServer
) -> None:
    hub_server.faults.stall("*.gguf", host="cdn", after_bytes=4096)
    one, other = await online.as_role(Role.POWER_USER), await online.as_role(Role.POWER_USER)
    job = (await online("POST", PULL, TINY, headers=one)).json()
    path = f"{PULL}/{job['id']}"
    bodhi_error(await online("POST", f"{path}/cancel", headers=other), 403, "forbidden")
    assert (await online("POST", f"{path}/cancel", headers=one)).json()["status"] == "cancelled"
    again = (await online("POST", f"{path}/retry", headers=one)).json()
    assert (again["id"], again["status"]) == (job["id"], "pending")
    await online("POST", f"{path}/cancel", headers=await online.as_role(Role.MANAGER))
    archived = await online("POST", f"{path}/archive", headers=one)
    assert archived.json()["archived_at"] and (await online.get(PULL)).json()["total"] == 0


async def test_jobs_that_are_no_downloads_are_not_found(online: Api) -> None:
    bodhi_error(await online.get(f"{PULL}/0123"), 404, "item_not_found")


async def test_downloads_by_a_tag_for_llama_cpp_stand_in_the_list(online: Api, hub_server: HubServer) -> None:
    job = await online.services.downloads.pull_tag(
        "org/tiny-GGUF", "Q8_0", principal=online.services.access.authenticate(None)
    )
    await online.services.jobs.wait(job.id, 30)
    (seen,) = (await online.get(PULL)).json()["data"]
    assert (seen["repo"], seen["status"]) == ("org/tiny-GGUF", "completed")
    assert seen["filename"] and seen["progress"] == 100
