"""The docker runtime keeps the contract of runtimes, on a real Docker Engine and on Podman."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ostler.core.clock import Clock
from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.runtimes.container_config import House
from ostler.runtimes.docker import DockerRuntime
from tests.real.docker_engine import EMPTY_IMAGE, DockerEngine
from tests.runtimes import stand_in
from tests.runtimes.contract import RuntimeContract, Subject, lines

pytestmark = pytest.mark.real

PYTHON = {
    "image": EMPTY_IMAGE,
    "mounts": [f"{sys.base_prefix}:/py", "/lib:/lib", "/lib64:/lib64", f"{stand_in.__file__}:/stand_in.py"],
}


def spec(*manners: str, model_id: int = 1, secret_env: tuple[str, ...] = ()) -> LaunchSpec:
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return LaunchSpec(
        model_id=model_id,
        model_name=f"model-{model_id}",
        engine="stand-in",
        runtime="docker",
        image=EMPTY_IMAGE,
        command=(f"/py/bin/{name}", "-S", "-E", "/stand_in.py"),
        args=("--host", HOST_SLOT, "--port", PORT_SLOT, *manners),
        env={"LD_LIBRARY_PATH": "/py/lib"},
        secret_env=secret_env,
        runtime_options=PYTHON,
    )


@pytest.fixture(params=["running_docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Iterator[DockerEngine]:
    found: DockerEngine = request.getfixturevalue(request.param)
    yield found
    found.clean()


@pytest.fixture
async def subject(engine: DockerEngine, tmp_path: Path) -> AsyncIterator[Subject]:
    made: list[DockerRuntime] = []

    def again() -> DockerRuntime:
        house = House("the-server-under-test", hub_cache=tmp_path / "hub")
        made.append(DockerRuntime(engine.host, house, tmp_path / "logs", offline=True, clock=Clock()))
        return made[-1]

    broken = replace(spec(), image="no/such/image:1", runtime_options={})
    yield Subject(runtime=again(), spec=spec, again=again, broken_spec=broken)
    for runtime in made:
        await runtime.close()


class TestDockerRuntime(RuntimeContract):
    @pytest.mark.parametrize("engine", ["running_docker"], indirect=True)
    async def test_log_bytes_that_are_no_text_and_huge_lines_do_no_harm(self, subject: Subject) -> None:
        await super().test_log_bytes_that_are_no_text_and_huge_lines_do_no_harm(subject)

    @pytest.mark.parametrize("engine", ["podman"], indirect=True)
    async def test_podmans_log_bytes_that_are_no_text_are_left_out(self, subject: Subject) -> None:
        """Docker replaces them in its log; Podman hands them out, and the library drops them."""
        spec = subject.spec("--junk", "200000", "--say", "text", "--exit-code", "0")
        handle = await subject.runtime.launch(spec, instance_id=1, secrets={})
        await asyncio.wait_for(subject.runtime.wait_exit(handle), 20)
        got = await lines(subject.runtime.logs(handle, tail_lines=None, follow=False))
        assert set("".join(got)) <= {*"text", "\ufffd"}
        assert "text" in got
