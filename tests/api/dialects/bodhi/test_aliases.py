"""Aliases of BodhiApp's and the models of every other door are the same things."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ostler.core.principals import LOCAL_ADMIN, Role
from ostler.models.records import NewModel, Source
from tests.api.conftest import Api
from tests.api.dialects.bodhi.shapes import bodhi_error

COMMIT = "5" * 40
OLDER = "9" * 40
REPO = "FakeFactory/fakemodel-gguf"


def in_cache(hub: Path, repo: str, file: str, content: Path, commit: str = COMMIT, ref: str = "main") -> Path:
    """Put a file into a hub cache as Hugging Face's own client does."""
    base = hub / f"models--{repo.replace('/', '--')}"
    pointer = base / "snapshots" / commit / file
    for folder in (base / "blobs", base / "refs", pointer.parent):
        folder.mkdir(parents=True, exist_ok=True)
    blob = base / "blobs" / f"{file.replace('/', '-')}-{commit[:4]}"
    shutil.copy(content, blob)
    pointer.symlink_to(Path("../" * (2 + file.count("/"))) / "blobs" / blob.name)
    (base / "refs" / ref).write_text(f"{commit}\n")
    return pointer


@pytest.fixture
def cached(api: Api, demo_model: Path) -> Api:
    """Two snapshots of one file, and a file in a folder of another repo."""
    hub = api.data_dir / "hub"
    in_cache(hub, REPO, "fakemodel.Q4_0.gguf", demo_model)
    in_cache(hub, REPO, "fakemodel.Q4_0.gguf", demo_model, OLDER, "non-main")
    in_cache(hub, "org/folders-GGUF", "Q8_0/big-Q8_0.gguf", demo_model)
    return api


async def test_models_of_every_door_are_aliases(cached: Api, model_file: Path) -> None:
    api = cached
    await api.model(model_file, "native", options={"context_length": 512}, request_defaults={"top_k": 3})
    by_tag = NewModel({"hub": f"{REPO}:Q4_0"}, name="by-tag")
    await api.services.models.create(by_tag, LOCAL_ADMIN)
    other = NewModel({"hub": "org/safe"}, name="other-engine", engine="vllm")
    await api.services.models.create(other, LOCAL_ADMIN)
    listed = {item["alias"]: item for item in (await api.get("//bodhi/v1/models")).json()["data"]}
    assert {"native", "by-tag", f"{REPO}:Q4_0", "org/folders-GGUF:Q8_0"} == listed.keys()
    assert (listed["native"]["filename"], listed["native"]["repo"]) == (model_file.name, "")
    assert listed["native"]["context_params"] == {"n_ctx": 512}
    assert (listed["by-tag"]["filename"], listed["by-tag"]["snapshot"]) == ("fakemodel.Q4_0.gguf", COMMIT)
    assert listed[f"{REPO}:Q4_0"]["snapshot"] == COMMIT
    assert listed["org/folders-GGUF:Q8_0"]["filename"] == "Q8_0/big-Q8_0.gguf"


async def test_a_change_here_leaves_what_other_doors_set(cached: Api, model_file: Path) -> None:
    model = await cached.model(
        model_file, "native", options={"gpu_layers": 3, "keep": 4}, request_defaults={"top_k": 3, "top_p": 1}
    )
    body = {"context_params": {"n_ctx": 1024}, "request_params": {"temperature": 0.5}}
    assert (await cached("PUT", "//bodhi/v1/models/native", body)).status_code == 200
    after = cached.services.models.get(model.id)
    assert after.options == {"gpu_layers": 3, "context_length": 1024}
    assert after.request_defaults == {"top_k": 3, "temperature": 0.5}
    assert after.source.path == str(model_file)


async def test_a_snapshot_is_a_branch_a_commit_or_not_there(cached: Api) -> None:
    body = {"repo": REPO, "filename": "fakemodel.Q4_0.gguf"}
    for number, (asked, commit) in enumerate(
        [(None, COMMIT), ("main", COMMIT), ("non-main", OLDER), (OLDER, OLDER)]
    ):
        more = {} if asked is None else {"snapshot": asked}
        made = await cached.post("//bodhi/v1/models", {**body, **more, "alias": f"a{number}"})
        assert (made.status_code, made.json()["snapshot"]) == (201, commit), made.text
        assert made.json()["requested_snapshot"] == (asked or "main")
        source = cached.services.models.get(f"a{number}").source
        assert source == Source("hub", repo=REPO, file=body["filename"], revision=commit)
    for asked in ("nothing", "0" * 40):
        answer = await cached.post("//bodhi/v1/models", {**body, "alias": "x", "snapshot": asked})
        bodhi_error(answer, 404, "hub_file_not_found_error")


async def test_a_key_sees_and_finds_only_what_it_may_use(cached: Api) -> None:
    body = {"repo": REPO, "filename": "fakemodel.Q4_0.gguf"}
    for name in ("mine", "other"):
        await cached.post("//bodhi/v1/models", {**body, "alias": name})
    headers = await cached.as_role(Role.USER, models=("mine", "org/*"))
    answer = await cached("GET", "//bodhi/v1/models", headers=headers)
    assert [item["alias"] for item in answer.json()["data"]] == ["mine", "org/folders-GGUF:Q8_0"]
    bodhi_error(await cached("GET", "//bodhi/v1/models/other", headers=headers), 404, "alias_not_found")
    bodhi_error(await cached("GET", f"//bodhi/v1/models/{REPO}:Q4_0", headers=headers), 404)


async def test_files_that_are_none_of_the_cache_are_not_listed(cached: Api, model_file: Path) -> None:
    hub = cached.data_dir / "hub"
    (hub / "models--FakeFactory--fakemodel-gguf/snapshots" / COMMIT / "foreign.txt").write_text("x")
    link = hub / "models--FakeFactory--fakemodel-gguf/snapshots" / COMMIT / "gone.gguf"
    link.symlink_to("../../blobs/none")
    listed = (await cached.get("//bodhi/v1/modelfiles", sort="size", sort_order="desc")).json()
    assert listed["total"] == 3
    assert {(item["filename"], item["snapshot_id"]) for item in listed["data"]} == {
        ("fakemodel.Q4_0.gguf", COMMIT),
        ("fakemodel.Q4_0.gguf", OLDER),
        ("Q8_0/big-Q8_0.gguf", COMMIT),
    }
    assert [
        item["filename"]
        for item in (await cached.get("//bodhi/v1/modelfiles", page=2, page_size=2)).json()["data"]
    ] == ["Q8_0/big-Q8_0.gguf"]


async def test_a_recipe_of_a_catalog_is_shown_and_not_changed(cached: Api) -> None:
    source = Source("hub", repo=REPO, file="fakemodel.Q4_0.gguf", revision=COMMIT)
    new = NewModel(source, name="from-git", engine="llamacpp", origin="catalog", read_only=True)
    await cached.services.models.create(new, LOCAL_ADMIN)
    assert (await cached.get("//bodhi/v1/models/from-git")).json()["source"] == "user"
    bodhi_error(await cached("PUT", "//bodhi/v1/models/from-git", {"request_params": {}}), 409)
