"""The fake runtime keeps the contract too, so what is tested with it holds for the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ostler.core.launch import LaunchSpec
from tests.runtimes.contract import RuntimeContract, Subject
from tests.runtimes.fake import FakeRuntime, World
from tests.runtimes.test_process_contract import spec


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    world = World()
    broken = LaunchSpec(1, "nothing", "stand-in", "process", command=("/no/such/engine",))
    yield Subject(FakeRuntime(world), spec, lambda: FakeRuntime(world), broken)
    await world.close()


class TestFakeRuntime(RuntimeContract):
    pass
