"""Parts beyond pip that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.real.docker_engine import DockerEngine, make_images, require_docker


@pytest.fixture(scope="session")
def running_docker() -> Iterator[DockerEngine]:
    require_docker()
    engine = DockerEngine(Path(mkdtemp(prefix="ostler-docker-", dir="/tmp")))
    try:
        engine.start()
        make_images(engine)
        yield engine
    finally:
        engine.end()


@pytest.fixture
def docker_engine(running_docker: DockerEngine) -> Iterator[DockerEngine]:
    """A real Docker Engine with our images and no container."""
    yield running_docker
    running_docker.clean()
