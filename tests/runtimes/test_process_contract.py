"""The process runtime keeps the contract."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.runtimes.process import ProcessRuntime
from tests.runtimes import stand_in
from tests.runtimes.contract import RuntimeContract, Subject

COMMAND = (sys.executable, "-S", "-E", stand_in.__file__, "--host", HOST_SLOT, "--port", PORT_SLOT)


def spec(*manners: str, model_id: int = 1, secret_env: tuple[str, ...] = ()) -> LaunchSpec:
    return LaunchSpec(
        model_id=model_id,
        model_name=f"model-{model_id}",
        engine="stand-in",
        runtime="process",
        command=COMMAND,
        args=manners,
        secret_env=secret_env,
    )


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    made: list[ProcessRuntime] = []

    def again() -> ProcessRuntime:
        made.append(ProcessRuntime(tmp_path / "state", 1_000_000))
        return made[-1]

    broken = LaunchSpec(1, "nothing", "stand-in", "process", command=("/no/such/engine",))
    yield Subject(runtime=again(), spec=spec, again=again, broken_spec=broken)
    for runtime in made:
        for found in await runtime.discover():
            await runtime.stop(found.handle, grace_s=0)


class TestProcessRuntime(RuntimeContract):
    pass
