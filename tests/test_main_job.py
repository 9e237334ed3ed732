"""The main job: a model file becomes a running engine that answers the real clients."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import openai
import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.models.records import NewModel
from tests.server import RunningOstler, running_ostler

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture
async def server(tmp_path: Path, demo_model: Path) -> AsyncIterator[RunningOstler]:
    """A server with one stopped model, `demo`."""
    async with running_ostler(tmp_path / "data") as running:
        services = running.ostler.services
        await services.models.create(
            NewModel({"path": str(demo_model)}, name="demo", request_defaults={"temperature": 0}), LOCAL_ADMIN
        )
        yield running


@pytest.fixture
async def client(server: RunningOstler) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="placeholder", max_retries=0
    ) as client:
        yield client


async def test_the_openai_client_chats_with_a_model_that_starts_on_demand(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": QUESTION}]
    )
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage is not None and answer.usage.completion_tokens > 3


async def test_the_openai_client_gets_the_answer_piece_by_piece(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER
    assert len(chunks) > 4
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 3


async def test_the_openai_client_completes_and_lists_models(client: openai.AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["demo"]
    completion = await client.completions.create(model="demo", prompt="The capital of", max_tokens=4)
    assert completion.choices[0].text


async def test_the_openai_client_gets_embeddings(server: RunningOstler, demo_model: Path) -> None:
    new = NewModel(
        {"path": str(demo_model)}, name="embedder", options={"embeddings": True, "pooling": "mean"}
    )
    await server.ostler.services.models.create(new, LOCAL_ADMIN)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        answer = await client.embeddings.create(model="embedder", input=["one", "two"])
    assert [len(item.embedding) for item in answer.data] == [256, 256]


async def test_the_anthropic_client_chats_streamed_and_not(server: RunningOstler) -> None:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="placeholder", max_retries=0) as client:
        message = await client.messages.create(
            model="demo", max_tokens=64, messages=[{"role": "user", "content": QUESTION}]
        )
        assert [block.text for block in message.content if block.type == "text"] == [ANSWER]
        async with client.messages.stream(
            model="demo", max_tokens=64, messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            pieces = [piece async for piece in stream.text_stream]
        assert "".join(pieces) == ANSWER and len(pieces) > 2


async def test_many_clients_at_once_start_one_engine(
    server: RunningOstler, client: openai.AsyncOpenAI
) -> None:
    async def ask() -> str | None:
        answer = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": QUESTION}]
        )
        return answer.choices[0].message.content

    assert set(await asyncio.gather(*(ask() for _ in range(6)))) == {ANSWER}
    starts, count = await server.ostler.services.events.find(kind="instance.running")
    assert count == 1, [event.cause for event in starts]


async def test_an_unknown_model_is_answered_with_the_near_name(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="demo") as caught:
        await client.chat.completions.create(model="dem", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "model_not_found"


async def test_a_model_with_a_program_of_its_own_is_served_by_that(
    server: RunningOstler, demo_model: Path, tmp_path: Path
) -> None:
    noted = tmp_path / "noted"
    program = tmp_path / "my llama-server"
    program.write_text(
        f'#!/bin/sh\necho "$0" >> {noted}\nexec {sys.executable} -m ostler.engines.llama_server "$@"\n'
    )
    program.chmod(0o755)
    new = NewModel({"path": str(demo_model)}, name="own", engine_command=f"'{program}'")
    await server.ostler.services.models.create(new, LOCAL_ADMIN)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        answer = await client.completions.create(model="own", prompt="The", max_tokens=2)
    assert answer.choices[0].text
    assert noted.read_text().splitlines()[-1] == str(program)
