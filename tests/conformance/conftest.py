"""Servers for the walks through Cortex's documents; after every test the models folder is looked over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.cortex_house import CortexHouse
from tests.real.docker_engine import LLAMA_IMAGE, DockerEngine, llama_server

PROCESSES = {"OSTLER_CORTEX_RUNTIME": "process"}


def _tidied(house: CortexHouse) -> Iterator[CortexHouse]:
    yield house
    house.clear()
    house.assert_untouched()


@pytest.fixture(scope="session")
def process_house(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[CortexHouse]:
    house = CortexHouse(tmp_path_factory.mktemp("cortex"), demo_model, PROCESSES)
    yield house
    house.server.end_everything()


@pytest.fixture
def cortex(process_house: CortexHouse) -> Iterator[CortexHouse]:
    """A server whose models are processes, with the built-in llama.cpp and no vLLM."""
    yield from _tidied(process_house)


@pytest.fixture(scope="session")
def container_house(
    running_docker: DockerEngine, tmp_path_factory: pytest.TempPathFactory, demo_model: Path
) -> Iterator[CortexHouse]:
    if llama_server() is None:
        pytest.skip("llama-server is missing: run tests/real/install.sh")
    settings = {"OSTLER_DOCKER_HOST": running_docker.host, "OSTLER_LLAMACPP_IMAGE": LLAMA_IMAGE}
    house = CortexHouse(tmp_path_factory.mktemp("cortex"), demo_model, settings)
    yield house
    house.server.end_everything()


@pytest.fixture
def in_containers(container_house: CortexHouse, docker_engine: DockerEngine) -> Iterator[CortexHouse]:
    """A server whose models are containers of a real Docker Engine, with the real llama-server inside."""
    yield from _tidied(container_house)


@pytest.fixture
def online_containers(docker_engine: DockerEngine, tmp_path: Path, demo_model: Path) -> Iterator[CortexHouse]:
    """As `in_containers`, but images may be pulled."""
    settings = {"OSTLER_DOCKER_HOST": docker_engine.host, "OSTLER_OFFLINE": "0"}
    house = CortexHouse(tmp_path, demo_model, settings)
    yield from _tidied(house)
    house.server.end_everything()


@pytest.fixture(scope="session")
def small_gpu_house(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[CortexHouse]:
    settings = {**PROCESSES, "OSTLER_DEVICES": "1x1GiB+64GiB host"}
    house = CortexHouse(tmp_path_factory.mktemp("cortex"), demo_model, settings)
    yield house
    house.server.end_everything()


@pytest.fixture
def small_gpu(small_gpu_house: CortexHouse) -> Iterator[CortexHouse]:
    """As `cortex`, on a machine that is pretended to have one GPU of 1 GiB."""
    yield from _tidied(small_gpu_house)


@pytest.fixture(scope="session")
def both_house(
    vllm: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory, demo_model: Path
) -> Iterator[CortexHouse]:
    folder = tmp_path_factory.mktemp("cortex")
    shutil.copytree(shared / "demo-model" / "hf", folder / "models" / "small")
    settings = {**PROCESSES, "OSTLER_VLLM_COMMAND": str(vllm), "HOME": str(folder)}
    house = CortexHouse(folder, demo_model, settings)
    yield house
    house.server.end_everything()


@pytest.fixture
def with_both(both_house: CortexHouse) -> Iterator[CortexHouse]:
    """A server whose models are processes of both engines, with the real vLLM for the CPU."""
    yield from _tidied(both_house)
