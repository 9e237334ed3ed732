"""The gateway between the real clients and the real llama.cpp."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import RequestError

from tests.gateway.conftest import INTERNAL_KEY, Stand

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
EXACT = {"temperature": 0}
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def llama(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A llama-server with the demo model; yields its address once it listens."""
    log = tmp_path_factory.mktemp("llama") / "log"
    command = [sys.executable, "-m", "ostler.engines.llama_server", "--model", str(demo_model)]
    port = _free_port()
    command += ["--host", "127.0.0.1", "--port", str(port), "--alias", "demo", "--parallel", "2"]
    with log.open("wb") as output:
        engine = subprocess.Popen(
            [*command, "--ctx-size", "1024"],
            env={**os.environ, "LLAMA_API_KEY": INTERNAL_KEY},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
        yield f"http://127.0.0.1:{port}"
        engine.terminate()
        try:
            engine.wait(10)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def engine(stand: Stand, llama: str) -> AsyncIterator[str]:
    """The model `demo` of the stand, served by the real engine."""
    async with ClientBuilder().no_proxy().build() as client, asyncio.timeout(30):
        while True:
            try:
                if (await client.get(llama + "/health").build().send()).status == 200:
                    break
            except RequestError:
                pass
            await asyncio.sleep(0.05)
    stand.instances.routes.withdraw(1, stand.instances.endpoints[1])
    stand.instances.publish(1, llama)
    yield llama


@pytest.fixture
async def client(stand: Stand, engine: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{stand.url}/v1", api_key="mine", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(stand: Stand, engine: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=stand.url, api_key="mine", max_retries=0) as client:
        yield client


async def test_openai_chats_and_the_tokens_are_accounted(stand: Stand, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="demo", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=2
    )
    assert answer.choices[0].message.content == ANSWER
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content
    [record] = await stand.records()
    assert answer.usage is not None
    assert record.prompt_tokens == answer.usage.prompt_tokens
    assert record.completion_tokens == answer.usage.completion_tokens
    assert (record.status, record.streamed, record.first_token_s) == (200, False, None)


async def test_openai_streams_and_the_tokens_are_accounted_unasked(
    stand: Stand, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(model="demo", messages=QUESTION, temperature=0, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert all(chunk.usage is None for chunk in chunks)
    [record] = await stand.records()
    assert record.streamed and record.first_token_s is not None
    assert record.prompt_tokens is not None and record.prompt_tokens > 3
    assert record.completion_tokens is not None and record.completion_tokens > 3


async def test_a_json_schema_is_kept_by_the_engine(client: openai.AsyncOpenAI) -> None:
    schema: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = await client.chat.completions.create(
        model="demo",
        messages=QUESTION,
        max_tokens=30,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
    )
    assert (answer.choices[0].message.content or "").lstrip().startswith("{")


async def test_responses_are_passed_on(stand: Stand, client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="demo", input=QUESTION[0]["content"], temperature=0)
    assert answer.output_text == ANSWER
    [record] = await stand.records()
    assert answer.usage is not None and record.prompt_tokens == answer.usage.input_tokens


async def test_an_error_of_the_engine_is_an_error_of_the_client(
    client: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    ask: Any = client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="messages"):
        await ask(model="demo", messages="no list")
    with pytest.raises(openai.APIStatusError, match="embeddings"):
        await client.embeddings.create(model="demo", input="x")
    too_long: Any = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(anthropic.BadRequestError, match="context") as caught:
        await claude.messages.create(model="demo", max_tokens=4, messages=too_long)
    assert isinstance(caught.value.body, dict) and caught.value.body["type"] == "error"


async def test_anthropic_chats_streams_and_counts(stand: Stand, claude: anthropic.AsyncAnthropic) -> None:
    message = await claude.messages.create(model="demo", max_tokens=64, messages=QUESTION, extra_body=EXACT)
    assert [block.text for block in message.content if block.type == "text"] == [ANSWER]
    async with claude.messages.stream(model="demo", max_tokens=64, messages=QUESTION) as stream:
        assert len([piece async for piece in stream.text_stream]) > 2
    counted = await claude.messages.count_tokens(model="demo", messages=QUESTION)
    assert counted.input_tokens > 3
    whole, streamed, _ = await stand.records()
    assert whole.completion_tokens == message.usage.output_tokens
    assert streamed.prompt_tokens == whole.prompt_tokens
    assert streamed.completion_tokens is not None and streamed.completion_tokens > 2


async def test_a_stream_that_is_left_stops_the_engine(
    stand: Stand, engine: str, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=QUESTION, stream=True, max_tokens=900, extra_body={"ignore_eos": True}
    )
    async for _ in stream:
        break
    await stream.close()
    headers = {"authorization": f"Bearer {INTERNAL_KEY}"}
    async with ClientBuilder().no_proxy().build() as direct, asyncio.timeout(10):
        while True:
            slots = await (await direct.get(engine + "/slots").headers(headers).build().send()).json()
            if not any(slot["is_processing"] for slot in slots):
                break
            await asyncio.sleep(0.02)
    assert stand.instances.endpoints[1].in_flight == 0


async def test_an_engine_killed_in_a_stream_is_an_error_of_the_client(stand: Stand) -> None:
    """The openai client reads our error event as an error, not as the end of the answer."""

    async def reply(seen: Any) -> None:
        await seen.start(content_type="text/event-stream")
        await seen.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"object":"c"}\n\n')
        seen.receive.__self__.transport.abort()
        await seen.until_gone()

    stand.engine.reply = reply
    async with openai.AsyncOpenAI(base_url=f"{stand.url}/v1", api_key="x", max_retries=0) as client:
        stream = await client.chat.completions.create(model="demo", messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in stream:
                pass
