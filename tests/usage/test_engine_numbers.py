"""Asking engines for their numbers: answers that are whole, broken, slow, or not there at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.states import InstanceState
from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.registry import Engines
from ostler.engines.vllm import Vllm
from ostler.usage.engine_numbers import RATE_WINDOW_S, TIMEOUT_S, EngineReader
from ostler.usage.figures import UsageFigures
from tests.engines.test_metrics import LLAMA_SERVER, VLLM
from tests.usage.test_usage import a_record, stored


class HandClock(Clock):
    """A clock whose passing a test decides."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed


@dataclass
class Answers:
    """What a scripted engine says by path; None keeps the connection open and says nothing."""

    by_path: dict[str, tuple[int, str] | None]
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


@dataclass(frozen=True)
class Seen:
    url: str | None
    engine: str = "vllm"
    id: int | None = 7
    model_id: int = 1
    model_name: str = "demo"
    state: InstanceState = InstanceState.RUNNING
    reason: str | None = None
    memory_bytes: int | None = 1234
    shares: str | None = None


@asynccontextmanager
async def answering(by_path: dict[str, tuple[int, str] | None]) -> AsyncIterator[Answers]:
    answers = Answers(by_path)
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        key = next((line for line in head.splitlines() if line.lower().startswith("authorization")), "")
        answers.asked.append((path, key.partition(": ")[2]))
        answer = answers.by_path.get(path, (404, "nothing"))
        if answer is None:
            await ended.wait()
        else:
            body = answer[1].encode()
            writer.write(
                b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (answer[0], len(body))
            )
            writer.write(body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    answers.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield answers
    finally:
        ended.set()
        server.close()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def reader(database: Database, clock: HandClock) -> AsyncIterator[EngineReader]:
    engines = Engines([LlamaCpp(), Vllm()])
    reader = EngineReader(engines, UsageFigures(database), clock, lambda number: f"key-{number}")
    await reader.start()
    yield reader
    await reader.close()


async def test_vllm_tells_its_own_latencies_and_is_asked_with_the_internal_key(reader: EngineReader) -> None:
    async with answering({"/metrics": (200, VLLM)}) as engine:
        (numbers,) = await reader.read([Seen(engine.url)])
    assert engine.asked == [("/metrics", "Bearer key-7")]
    assert (numbers.told_by, numbers.error) == ("engine", None)
    assert numbers.request_p50_s is not None and numbers.request_p95_s is not None
    assert 0 < numbers.request_p50_s <= numbers.request_p95_s
    assert numbers.first_token_p50_s == pytest.approx(0.00875)
    assert (numbers.kv_cache_usage_ratio, numbers.memory_bytes) == (0, 1234)


async def test_llama_servers_latencies_come_from_our_account_and_its_cache_from_its_slots(
    database: Database, reader: EngineReader, clock: HandClock
) -> None:
    now = clock.now()
    await stored(
        database,
        *(a_record(instance_id=7, duration_s=float(n), first_token_s=n / 10, at=now) for n in (1, 2, 3)),
        a_record(instance_id=8, duration_s=50.0, at=now),
        a_record(instance_id=7, duration_s=50.0, status=500, at=now),
        a_record(instance_id=7, duration_s=50.0, at=now - timedelta(hours=2)),
    )
    slots = '[{"n_ctx": 100, "n_prompt_tokens": 25}]'
    async with answering({"/metrics": (200, LLAMA_SERVER), "/slots": (200, slots)}) as engine:
        (numbers,) = await reader.read([Seen(engine.url, "llamacpp")])
    assert (numbers.told_by, numbers.request_p50_s) == ("gateway", 2.0)
    assert numbers.request_p95_s == pytest.approx(2.9) and numbers.first_token_p50_s == pytest.approx(0.2)
    assert (numbers.kv_cache_usage_ratio, numbers.generation_tokens_total) == (0.25, 27)
    assert numbers.requests_swapped is None


async def test_tokens_per_second_are_those_between_two_looks(reader: EngineReader, clock: HandClock) -> None:
    def said(prompt: int, generated: int) -> tuple[int, str]:
        return 200, f"vllm:prompt_tokens_total {prompt}\nvllm:generation_tokens_total {generated}\n"

    async with answering({"/metrics": said(100, 10)}) as engine:
        seen = [Seen(engine.url)]
        assert (await reader.read(seen))[0].prompt_tokens_per_second is None
        clock.passed = 10
        engine.by_path["/metrics"] = said(200, 60)
        (numbers,) = await reader.read(seen)
        assert (numbers.prompt_tokens_per_second, numbers.generation_tokens_per_second) == (10, 5)
        clock.passed = 11 + 2 * RATE_WINDOW_S
        assert (await reader.read(seen))[0].prompt_tokens_per_second is None
        clock.passed += 10
        engine.by_path["/metrics"] = said(5, 5)
        assert (await reader.read(seen))[0].prompt_tokens_per_second is None


async def test_askers_that_come_together_share_one_look(reader: EngineReader, clock: HandClock) -> None:
    async with answering({"/metrics": (200, VLLM)}) as engine:
        seen = [Seen(engine.url)]
        await asyncio.gather(*(reader.read(seen) for _ in range(20)))
        assert len(engine.asked) == 1
        clock.passed += 5
        await reader.read(seen)
        assert len(engine.asked) == 2


async def test_one_that_says_nothing_is_left_alone_and_delays_nobody_for_long(reader: EngineReader) -> None:
    async with answering({"/metrics": None}) as silent, answering({"/metrics": (200, VLLM)}) as engine:
        seen = [Seen(silent.url, model_name=f"silent-{n}", id=100 + n) for n in range(5)]
        async with asyncio.timeout(4 * TIMEOUT_S):
            found = await reader.read([*seen, Seen(engine.url, model_name="a")])
    assert found[0].error is None and found[0].prompt_tokens_total
    assert all("did not answer" in str(one.error) and one.prompt_tokens_total is None for one in found[1:])


@pytest.mark.parametrize("answer", [(501, "no metrics here"), (200, "<html>"), (200, "")])
async def test_what_cannot_be_read_is_not_made_up(reader: EngineReader, answer: tuple[int, str]) -> None:
    async with answering({"/metrics": answer}) as engine:
        (numbers,) = await reader.read([Seen(engine.url, "llamacpp")])
    assert (numbers.error is not None) == (answer[0] != 200)
    assert numbers.requests_running is None and numbers.kv_cache_usage_ratio is None


async def test_an_engine_that_does_not_run_is_not_asked(reader: EngineReader) -> None:
    seen = Seen(None, state=InstanceState.FAILED, reason="it ended with code 1")
    (numbers,) = await reader.read([seen])
    assert (numbers.state, numbers.error) == (InstanceState.FAILED, "it ended with code 1")
    assert (await reader.read([Seen("http://127.0.0.1:1", "moon")]))[0].error
    assert await reader.expositions([seen]) == b""
