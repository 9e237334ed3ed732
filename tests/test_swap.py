"""Two models that cannot live together: both are asked for all the time, and no request fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.models.records import NewModel
from tests.server import running_ostler

pytestmark = pytest.mark.real

CLIENTS, REQUESTS = 3, 12
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


async def test_they_swap_on_demand_under_load_of_both(tmp_path: Path, demo_model: Path) -> None:
    async with running_ostler(
        tmp_path / "data", devices="cpu:10MiB", device_reserve="0", swap_after_s=1.0
    ) as running:
        services = running.ostler.services
        for name in ("left", "right"):
            new = NewModel(
                {"path": str(demo_model)},
                name=name,
                request_defaults={"temperature": 0},
                policy={"share": False},  # else one engine would serve both
            )
            await services.models.create(new, LOCAL_ADMIN)

        async def ask(model: str) -> None:
            for _ in range(REQUESTS):
                answer = await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": QUESTION}]
                )
                assert answer.choices[0].message.content == ANSWER

        url = f"{running.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="placeholder", max_retries=0) as client:
            async with asyncio.timeout(100), asyncio.TaskGroup() as load:
                for model in ("left", "right") * CLIENTS:
                    load.create_task(ask(model))

        events, _ = await services.events.find(limit=500, newest_first=False)
        evicted = [event for event in events if event.kind == "instance.evicted"]
        assert len(evicted) >= 1
        assert not any(event.data["cut_requests"] for event in events if event.kind == "instance.stopped")
        assert not [event for event in events if event.kind in ("instance.failed", "instance.refused")]
        running_now = 0
        for event in events:
            running_now += event.kind == "instance.starting"
            running_now -= event.kind == "instance.stopped"
            assert running_now <= 1, "never both at once"
