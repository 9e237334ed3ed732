"""Images of a real Docker Engine as Cortex's and our own API show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.docker_engine import LLAMA_IMAGE, DockerEngine
from tests.real.docker_house import DockerHouse

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


def test_what_the_daemon_has_is_shown_with_size_age_and_names(
    docker_engine: DockerEngine, tmp_path: Path, demo_model: Path
) -> None:
    house = DockerHouse(docker_engine, tmp_path, demo_model, OSTLER_VLLM_IMAGE="absent.example/vllm:1")
    try:
        house.add()
        house.add("other", runtime_options={"image": "absent.example/llama:2"})
        body = house.server.ask("/admin/system/docker-images")
        llama = body["engines"]["llamacpp"]
        assert (llama["image"], llama["cached"], llama["models"]) == (LLAMA_IMAGE, True, ["demo"])
        assert llama["size_mb"] > 1 and llama["created"]
        assert any(LLAMA_IMAGE.split(":")[0] in tag for tag in llama["tags"])
        assert not body["engines"]["vllm"]["cached"]
        assert not body["offline_ready"]
        assert body["summary"]["missing"] == ["absent.example/vllm:1", "absent.example/llama:2"]
        advice = body["recommendations"]  # test servers are offline
        assert [text.split()[1] for text in advice] == body["summary"]["missing"]
        assert all("docker load" in text for text in advice)
        house.server.ask("/ostler/v1/models/other", method="DELETE")
        assert house.server.ask("/admin/system/docker-images")["offline_ready"]
        items = {item["image"]: item for item in house.server.ask("/ostler/v1/images")["items"]}
        assert items[LLAMA_IMAGE]["is_here"] and not items["absent.example/vllm:1"]["is_here"]
    finally:
        house.server.end_everything()
