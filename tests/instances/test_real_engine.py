"""The real thing: llama.cpp as a process, with the demo model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pyreqwest.client import ClientBuilder

from ostler.core.database import Database
from ostler.core.principals import LOCAL_ADMIN
from ostler.runtimes.process import ProcessRuntime
from tests.instances.conftest import House, running_house


@pytest.fixture
async def real(database: Database, tmp_path: Path, models_dir: Path) -> AsyncIterator[House]:
    runtime = ProcessRuntime(tmp_path / "engines", 1_000_000)
    async with running_house(database, tmp_path, runtime) as house:
        yield house
        await house.instances.stop_all(LOCAL_ADMIN, now=True)


async def test_the_engine_answers_through_a_lease_with_its_own_key_only(real: House) -> None:
    model = await real.add("a")
    lease = await real.lease(model)
    async with ClientBuilder().build() as client:
        url = lease.base_url + "/v1/chat/completions"
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        refused = await client.post(url).body_json(body).build().send()
        answer = await client.post(url).bearer_auth(lease.api_key).body_json(body).build().send()
    lease.release()
    assert refused.status == 401
    assert (await answer.json())["choices"]
