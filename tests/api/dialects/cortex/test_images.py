"""Whether the images of engines are here: what the recipes need, and what is said where nobody answers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ostler.models.images import images_needed, look_for, ready_offline
from ostler.runtimes.base import LocalImage
from ostler.runtimes.process import ProcessRuntime
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.cortex.shapes import envelope
from tests.runtimes.fake import FakeRuntime

IMAGES = "//admin/system/docker-images"
LLAMA, VLLM, OWN = "llama:1", "vllm:1", "own:2"
HERE = LocalImage("sha256:1", 3 * 2**20, datetime(2026, 1, 1, tzinfo=UTC), (LLAMA,))


@pytest.fixture
async def api(make_api: MakeApi, tmp_path: Path) -> Api:
    """Without a Docker daemon."""
    away = f"unix://{tmp_path}/none.sock"
    return await make_api(docker_host=away, llamacpp_image=LLAMA, vllm_image=VLLM)


async def test_images_of_models_in_containers_are_needed_beside_the_defaults(
    api: Api, model_file: Path
) -> None:
    await api.model(model_file, "plain", runtime="docker")
    await api.model(model_file, "own", runtime="docker", runtime_options={"image": OWN})
    await api.model(model_file, "process", runtime_options={"image": "never:1"})
    needed = images_needed(api.services.models.all(), api.services.engines)
    assert [(item.image, item.engine, item.is_default, item.models) for item in needed] == [
        (LLAMA, "llamacpp", True, ("plain",)),
        (VLLM, "vllm", True, ()),
        (OWN, "llamacpp", False, ("own",)),
    ]


async def test_ready_means_that_every_image_in_use_is_here(api: Api, model_file: Path) -> None:
    docker = FakeRuntime(name="docker")

    async def is_ready() -> bool:
        needed = images_needed(api.services.models.all(), api.services.engines)
        return ready_offline(await look_for(needed, docker))

    assert not await is_ready()
    docker.images = {LLAMA: HERE}
    assert not await is_ready()  # nothing is in use, so both defaults count
    await api.model(model_file, "plain", runtime="docker")
    assert await is_ready()
    await api.model(model_file, "own", runtime="docker", runtime_options={"image": OWN})
    assert not await is_ready()
    docker.go_away()
    assert not await is_ready()


async def test_a_process_has_no_images(tmp_path: Path) -> None:
    assert await ProcessRuntime(tmp_path, 10_000).image(LLAMA) is None


async def test_without_a_daemon_nothing_is_said_to_be_ready(api: Api, model_file: Path) -> None:
    await api.model(model_file, "own", runtime="docker", runtime_options={"image": OWN})
    body = (await api.get(IMAGES)).json()
    assert (body["offline_mode"], body["offline_ready"]) == (True, False)
    assert body["engines"].keys() == {"vllm", "llamacpp"}
    llama = body["engines"]["llamacpp"]
    assert (llama["image"], llama["cached"], llama["size_mb"], llama["tags"]) == (LLAMA, False, None, [])
    assert "does not answer" in llama["error"]
    assert [(item["image"], item["engine"], item["models"]) for item in body["model_images"]] == [
        (OWN, "llamacpp", ["own"])
    ]
    assert body["summary"] == {"total": 3, "cached": 0, "missing": [LLAMA, VLLM, OWN]}
    assert len(body["recommendations"]) == 1 and "not known" in body["recommendations"][0]


async def test_the_native_list_says_the_same(api: Api) -> None:
    items = (await api.get("/images")).json()["items"]
    assert [(item["image"], item["is_default"], item["is_here"]) for item in items] == [
        (LLAMA, True, False),
        (VLLM, True, False),
    ]
    assert all("does not answer" in item["trouble"] for item in items)


async def test_only_administrators_see_them(guarded: Api) -> None:
    envelope(await guarded.get(IMAGES), 401, "unauthenticated")
