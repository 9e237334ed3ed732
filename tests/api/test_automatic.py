"""Automatic models over the API and through the gateway: listed, used, and stored by that."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2
import pytest

from ostler.app import build
from ostler.core.principals import SYSTEM, Role
from ostler.core.settings_sources import load_settings
from tests.api.conftest import Api, problem
from tests.library.gguf_files import put_in_hub_cache

COMMIT = "a" * 40
NAME = "org/tiny:Q8_0"


@pytest.fixture
async def cached(api: Api, demo_model: Path, tmp_path: Path) -> Api:
    """The API over a cache that holds the demo model, of which nobody made a model."""
    _put(api, demo_model, tmp_path)
    return api


def _put(api: Api, demo_model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(demo_model, tmp_path / "tiny-Q8_0.gguf"))
    put_in_hub_cache(api.data_dir / "hub", "org/tiny", COMMIT, {"tiny-Q8_0.gguf": source})


async def test_the_list_has_automatic_models_among_the_stored_ones_in_one_order(
    cached: Api, model_file: Path
) -> None:
    await cached.model(model_file, "a-first")
    await cached.model(model_file, "z-last")
    listed = (await cached.get("/models")).json()
    assert [item["name"] for item in listed["items"]] == ["a-first", NAME, "z-last"]
    automatic = listed["items"][1]
    assert (automatic["automatic"], automatic["id"], automatic["state"]) == (True, 0, "stopped")
    assert automatic["origin"] == "library" and automatic["file_set"]["quantization"] == "Q8_0"
    assert [item["automatic"] for item in listed["items"]] == [False, True, False]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"automatic": True}, [NAME]),
        ({"automatic": False}, ["stored"]),
        ({"origin": "library"}, [NAME]),
        ({"engine": "vllm"}, []),
        ({"search": "TINY"}, [NAME]),
        ({"state": "stopped", "sort": "-name"}, ["stored", NAME]),
        ({"archived": True}, []),
        ({"limit": 1, "offset": 1}, ["stored"]),
    ],
)
async def test_filters_and_pages_mean_automatic_models_too(
    cached: Api, model_file: Path, query: dict[str, object], names: list[str]
) -> None:
    await cached.model(model_file, "stored")
    listed = (await cached.get("/models", **query)).json()
    assert [item["name"] for item in listed["items"]] == names


async def test_looking_at_one_stores_nothing(cached: Api) -> None:
    shown = (await cached.get(f"/models/{NAME}")).json()
    assert (shown["automatic"], shown["name"], shown["source"]["repo"]) == (True, NAME, "org/tiny")
    assert shown["memory"] is not None and shown["files_problem"] is None
    run = (await cached.post(f"/models/{NAME}/dry-run")).json()
    assert run["can_start"] and "tiny-Q8_0.gguf" in " ".join(run["argv"])
    for path in ("instance", "logs"):
        assert (await cached.get(f"/models/{NAME}/{path}")).status_code == 200
    assert (await cached.post(f"/models/{NAME}/stop")).json()["state"] == "stopped"
    assert (await cached.post("/fit", {"model": NAME})).status_code == 200
    assert cached.services.models.all() == []


async def test_starting_one_stores_it_and_it_runs(cached: Api) -> None:
    started = await cached.post(f"/models/{NAME}/start")
    assert (started.status_code, started.json()["state"]) == (200, "running")
    shown = (await cached.get(f"/models/{NAME}")).json()
    assert not shown["automatic"] and shown["id"] > 0 and shown["state"] == "running"


async def test_changing_one_stores_it_with_the_change_and_a_copy_leaves_it_automatic(cached: Api) -> None:
    copied = await cached.post(f"/models/{NAME}/copy", {"name": "mine"})
    assert copied.status_code == 201 and copied.json()["origin"] == "native"
    await cached("DELETE", "/models/mine")
    changed = await cached("PATCH", f"/models/{NAME}", {"options": {"context_length": 256}})
    assert changed.json()["options"] == {"context_length": 256} and changed.json()["id"] > 0


async def test_one_cannot_be_deleted_without_its_files(cached: Api) -> None:
    refused = problem(await cached("DELETE", f"/models/{NAME}"), 409, "automatic_stays")
    assert "--files" in refused["hint"]
    (file,) = (await cached.get("/files")).json()["items"]
    assert (await cached("DELETE", f"/files/{file['id']}")).status_code == 200
    problem(await cached.get(f"/models/{NAME}"), 404)


async def test_a_key_sees_and_uses_only_the_automatic_models_of_its_list(
    guarded: Api, demo_model: Path, tmp_path: Path
) -> None:
    _put(guarded, demo_model, tmp_path)
    other = await guarded.as_role(Role.POWER_USER, models=("else*",))
    own = await guarded.as_role(Role.POWER_USER, models=("org/tiny:*",))
    assert (await guarded("GET", "/models", headers=other)).json()["items"] == []
    for method, action, body in (("GET", "", None), ("POST", "/start", {}), ("PATCH", "", {})):
        refused = await guarded(method, f"/models/{NAME}{action}", body, headers=other)
        assert refused.status_code == 403
    assert guarded.services.models.all() == []
    assert (await guarded("GET", f"/models/{NAME}", headers=own)).status_code == 200


async def test_the_gateway_lists_one_and_the_first_request_stores_and_starts_it(
    tmp_path: Path, demo_model: Path
) -> None:
    (tmp_path / "data").mkdir()
    flags = {
        "data_dir": tmp_path / "data",
        "hub_cache_dir": tmp_path / "hub",
        "offline": True,
        "stop_engines_on_exit": True,
        "host": "0.0.0.0",
    }
    source = Path(shutil.copy(demo_model, tmp_path / "tiny-Q8_0.gguf"))
    put_in_hub_cache(tmp_path / "hub", "org/tiny", COMMIT, {"tiny-Q8_0.gguf": source})
    async with build(load_settings(flags=flags, environ={})).running() as ostler:
        models, keys = ostler.services.models, ostler.services.keys
        _, token = await keys.create("a user", Role.USER, SYSTEM, models=("org/*",))
        _, other = await keys.create("another", Role.USER, SYSTEM, models=("else",))
        transport = httpx2.ASGITransport(app=ostler.gateway)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:

            async def ask(path: str, model: str | None = None, token: str = token) -> httpx2.Response:
                headers = {"Authorization": f"Bearer {token}"}
                if model is None:
                    return await client.get(f"/v1/{path}", headers=headers)
                body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
                return await client.post(f"/v1/{path}", headers=headers, json=body)

            (row,) = (await ask("models")).json()["data"]
            assert (row["id"], row["automatic"], row["state"]) == (NAME, True, "stopped")
            assert (await ask(f"models/{NAME}")).json()["id"] == NAME
            assert (await ask("models", token=other)).json()["data"] == []
            assert (await ask(f"models/{NAME}", token=other)).status_code == 403
            assert (await ask("chat/completions", NAME, token=other)).status_code == 403
            unknown = await ask("chat/completions", "org/tiny:Q4_0")
            assert unknown.status_code == 404 and NAME in unknown.text
            assert models.all() == []
            answer = await ask("chat/completions", NAME)
            assert answer.status_code == 200, answer.text
            assert [model.origin for model in models.all()] == ["library"]
            (row,) = (await ask("models")).json()["data"]
            assert (row["id"], row["state"], row.get("automatic")) == (NAME, "running", None)
