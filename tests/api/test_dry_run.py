"""Dry runs over HTTP: what would run, what was chosen, what is wrong, and what is still to be fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.conftest import Api, MakeApi, problem
from tests.hub.server import HubServer

RECIPE = {"source": {"hub": "org/tiny-GGUF:Q8_0"}, "name": "planned"}


async def test_findings_are_data_and_texts_are_beside_them(api: Api, demo_model: Path) -> None:
    await api.model(demo_model, "odd", options={"context_length": 4096}, extra_args=("--no-such-flag",))
    told = (await api.post("/models/odd/dry-run")).json()
    shape = {"code", "severity", "category", "title", "message", "fix", "field", "can_ignore"}
    assert all(set(found) == shape for found in told["findings"])
    by_code = {found["code"]: found for found in told["findings"]}
    assert by_code["unknown_flag"]["severity"] == "error" and by_code["unknown_flag"]["can_ignore"] is True
    assert by_code["context_beyond_training"]["severity"] == "warning"
    assert told["can_start"] is False
    assert len(told["errors"]) == 1 and by_code["unknown_flag"]["message"] in told["errors"][0]
    assert by_code["context_beyond_training"]["message"] in told["warnings"]
    ignoring = (await api.post("/models/odd/dry-run", {"ignore": ["unknown_flag"]})).json()
    assert ignoring["can_start"] is True and ignoring["errors"] == []


async def test_a_start_takes_the_codes_to_ignore(api: Api, demo_model: Path) -> None:
    options = {"kv_cache_type": "q8_0", "flash_attention": "off"}
    await api.model(demo_model, "odd", options=options)
    refused = problem(await api.post("/models/odd/start"), 409, "start_blocked")
    assert refused["facts"]["findings"][0]["code"] == "v_cache_needs_flash_attention"
    wrong = problem(await api.post("/models/odd/start", {"ignore": ["gated_repo"]}), 422)
    assert wrong["facts"]["field"] == "ignore"
    problem(await api.post("/models/odd/dry-run", {"ignore": "all"}), 422)


async def test_what_is_chosen_stands_in_the_model_and_in_fit_with_its_reason(
    make_api: MakeApi, demo_model: Path
) -> None:
    api = await make_api(devices="24GiB,cpu:8GiB")
    await api.model(demo_model, "open")
    shown = (await api.get("/models/open")).json()
    lines = {line["name"]: line for line in shown["chosen"]}
    assert set(lines) == {"gpu_layers", "context_length", "fit"} and shown["nothing_chosen"] is None
    assert all(line["reason"] for line in lines.values()) and shown["options"] == {}
    dry = (await api.post("/models/open/dry-run")).json()
    assert dry["chosen"] == shown["chosen"]
    fit = (await api.post("/fit", {"model": "open"})).json()
    assert fit["chosen"] == shown["chosen"] and fit["options"]["context_length"] == 1024
    await api("PATCH", "/models/open", {"options": {"gpu_layers": 1, "context_length": 512}})
    shown = (await api.get("/models/open")).json()
    assert [line["name"] for line in shown["chosen"]] == ["fit"]


@pytest.fixture
async def online(make_api: MakeApi, hub_server: HubServer, demo_model: Path) -> Api:
    """An Ostler whose hub has one repo, of which nothing is here."""
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": demo_model})
    return await make_api(offline=False, hf_endpoint=hub_server.endpoint)


async def test_of_files_that_are_not_here_the_dry_run_says_what_is_to_fetch_and_whether_it_will_fit(
    online: Api, hub_server: HubServer, demo_model: Path
) -> None:
    told = (await online.post("/dry-run", RECIPE)).json()
    assert told["disk"]["needed_bytes"] == demo_model.stat().st_size and told["disk"]["enough"] is True
    assert told["disk"]["free_bytes"] > told["disk"]["needed_bytes"]
    (error,) = (found for found in told["findings"] if found["severity"] == "error")
    assert error["code"] == "model_file_gone" and "ostler pull org/tiny-GGUF:Q8_0" in error["fix"]
    assert told["fits"] is True and [line["name"] for line in told["chosen"]] == ["context_length"]
    fetched = sum(request.bytes_sent for request in hub_server.requests_for("/cdn/*", method="GET"))
    assert fetched < demo_model.stat().st_size, "headers only"
    assert (await online.get("/models")).json()["total"] == 0
    assert (await online.get("/jobs")).json()["total"] == 0


async def test_a_disk_without_room_for_the_download_is_an_error(
    make_api: MakeApi, hub_server: HubServer, demo_model: Path
) -> None:
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": demo_model})
    api = await make_api(offline=False, hf_endpoint=hub_server.endpoint, disk_reserve_bytes=1 << 50)
    told = (await api.post("/dry-run", RECIPE)).json()
    full = next(found for found in told["findings"] if found["code"] == "disk_full")
    assert told["disk"]["enough"] is False and full["severity"] == "error" and not full["can_ignore"]


async def test_a_repo_that_its_owner_guards_is_named(make_api: MakeApi, hub_server: HubServer) -> None:
    hub_server.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": b"x" * 1000}, gated="manual")
    api = await make_api(offline=False, hf_endpoint=hub_server.endpoint)
    told = (await api.post("/dry-run", {**RECIPE, "engine": "llamacpp"})).json()
    assert "gated_repo" in {found["code"] for found in told["findings"]}


async def test_offline_it_says_that_the_files_are_not_here_and_that_the_hub_cannot_be_asked(
    api: Api,
) -> None:
    told = (await api.post("/dry-run", {**RECIPE, "engine": "llamacpp"})).json()
    assert {"model_file_gone", "offline"} == {found["code"] for found in told["findings"]}
    assert told["disk"] is None and told["can_start"] is False
