"""Two aliases on one real llama-server, by way of the real gateway and the real `openai` client."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from ostler.app import Ostler, build
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.settings_sources import load_settings
from ostler.models.records import Model, NewModel
from ostler.usage import UsageLog
from tests.gateway.conftest import serving

CHECKOUT = Path(__file__).parents[2]
QUESTION: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def llama_server() -> str:
    """The program of `.venv-llama`, or the one on PATH."""
    found = shutil.which("llama-server") or str(CHECKOUT / ".venv-llama" / "bin" / "llama-server")
    if not Path(found).is_file():
        pytest.skip("llama-server is missing (PATH or .venv-llama/bin/llama-server)")
    return found


@asynccontextmanager
async def two_aliases(
    tmp_path: Path, demo_model: Path, command: str | None
) -> AsyncIterator[tuple[Ostler, openai.AsyncOpenAI, Model, Model]]:
    """A server with `first` and `second`, of one file."""
    (tmp_path / "data" / "models").mkdir(parents=True)
    shutil.copy(demo_model, tmp_path / "data" / "models" / "demo.gguf")
    flags = {
        "data_dir": tmp_path / "data",
        "hub_cache_dir": tmp_path / "hub",
        "offline": True,
        "stop_engines_on_exit": True,
        "llama_server_command": command,
    }
    async with build(load_settings(flags=flags, environ={})).running() as ostler:
        models = [
            await ostler.services.models.create(
                NewModel(
                    {"path": "demo.gguf"},
                    name=name,
                    aliases=(f"{name}-too",),
                    request_defaults={"max_tokens": tokens},
                    policy={"apply_changes": "next_request"},
                ),
                LOCAL_ADMIN,
            )
            for name, tokens in (("first", 2), ("second", 3))
        ]
        async with serving(ostler.gateway) as url:
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                yield ostler, client, models[0], models[1]


async def _share_and_answer(ostler: Ostler, client: openai.AsyncOpenAI, first: Model, second: Model) -> None:
    names = ("first", "second", "second-too", "first-too")
    answers = await asyncio.gather(
        *(client.chat.completions.create(model=name, messages=QUESTION) for name in names)
    )
    assert tuple(answer.model for answer in answers) == names
    assert [a.usage.completion_tokens for a in answers if a.usage] == [2, 3, 3, 2], (
        "defaults are each one's own"
    )
    instances = ostler.services.instances
    one, two = instances.view(first.id), instances.view(second.id)
    assert one.pid is not None and one.pid == two.pid
    assert {one.shares, two.shares} in ({None, "first"}, {None, "second"})
    stream: Any = await client.chat.completions.create(model="second-too", messages=QUESTION, stream=True)
    assert {chunk.model async for chunk in stream} == {"second-too"}

    # an edit of one holds from its next request on, and the other is not disturbed
    await ostler.services.models.update(first.id, {"options": {"context_length": 256}}, LOCAL_ADMIN)
    answers = await asyncio.gather(
        *(client.chat.completions.create(model=name, messages=QUESTION) for name in names)
    )
    assert tuple(answer.model for answer in answers) == names
    assert instances.view(first.id).context_length == 256
    assert instances.view(second.id).context_length != 256
    assert instances.view(first.id).pid != instances.view(second.id).pid
    await ostler.usage_writer.flush()
    stored = (await UsageLog(ostler.services.database, ostler.services.clock).find()).items
    by_model = [one.record.model_name for one in stored]
    assert (by_model.count("first"), by_model.count("second")) == (4, 5)


async def test_two_aliases_share_the_built_in_engine(tmp_path: Path, demo_model: Path) -> None:
    async with two_aliases(tmp_path, demo_model, None) as parts:
        await _share_and_answer(*parts)


@pytest.mark.real
async def test_two_aliases_share_a_real_llama_server(
    tmp_path: Path, demo_model: Path, llama_server: str
) -> None:
    async with two_aliases(tmp_path, demo_model, llama_server) as parts:
        await _share_and_answer(*parts)
