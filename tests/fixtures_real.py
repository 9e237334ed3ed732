"""Fixtures of parts beyond pip that several rooms' tests share (a pytest plugin; tests/conftest.py loads it).

Each names its part as missing where it is not on this machine; `tests/real/install.sh` brings them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.real.docker_engine import DockerEngine, PodmanService, make_images, require
from tests.real.vllm_environment import is_complete, vllm_environment

CHECKOUT = Path(__file__).parents[1]


def _running(engine: DockerEngine) -> Iterator[DockerEngine]:
    try:
        engine.start()
        make_images(engine)
        yield engine
    finally:
        engine.end()


@pytest.fixture(scope="session")
def running_docker() -> Iterator[DockerEngine]:
    require("dockerd")
    yield from _running(DockerEngine(Path(mkdtemp(prefix="ostler-docker-", dir="/tmp"))))


@pytest.fixture(scope="session")
def podman() -> Iterator[DockerEngine]:
    """Podman's service in place of a Docker Engine."""
    require("podman")
    yield from _running(PodmanService(Path(mkdtemp(prefix="ostler-podman-", dir="/tmp"))))


@pytest.fixture
def docker_engine(running_docker: DockerEngine) -> Iterator[DockerEngine]:
    """A real Docker Engine with our images and no container."""
    yield running_docker
    running_docker.clean()


@pytest.fixture(scope="session")
def vllm() -> Path:
    """The virtual environment with vLLM."""
    found = vllm_environment()
    if not is_complete(found):
        pytest.skip(f"vLLM is missing ({found}): run tests/real/install.sh")
    return found


@pytest.fixture
def llama_server() -> str:
    """The program, from OSTLER_TEST_LLAMA_SERVER, PATH or `.venv-llama` of the checkout."""
    named = os.environ.get("OSTLER_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    found = named or str(CHECKOUT / ".venv-llama" / "bin" / "llama-server")
    if not Path(found).is_file():
        pytest.skip("llama-server is missing (PATH or .venv-llama/bin/llama-server)")
    return found
