"""Parts beyond pip that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.real.docker_engine import DockerEngine, PodmanService, make_images, require


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
