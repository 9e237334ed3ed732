"""A whole server whose state is in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.models.records import NewModel
from tests.postgresql import PostgreSQL
from tests.server import running_ostler

pytestmark = pytest.mark.real


async def test_a_model_is_kept_served_and_accounted_in_postgresql(
    postgresql: PostgreSQL, tmp_path: Path, demo_model: Path
) -> None:
    url = postgresql.new_database()
    async with running_ostler(tmp_path / "data", database_url=url) as server:
        new = NewModel({"path": str(demo_model)}, name="demo", request_defaults={"temperature": 0})
        await server.ostler.services.models.create(new, LOCAL_ADMIN)
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            answer = await client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "What is the capital of France?"}]
            )
        assert answer.choices[0].message.content == "The capital of France is Paris."
    assert not (tmp_path / "data" / "ostler.db").exists()

    async with running_ostler(tmp_path / "data", database_url=url) as again:
        services = again.ostler.services
        assert services.models.get("demo").request_defaults == {"temperature": 0}
        assert (await services.events.find(kind="instance.running"))[1] == 1
        requests = await services.usage.find()
        assert requests.total == 1 and requests.items[0].record.completion_tokens
