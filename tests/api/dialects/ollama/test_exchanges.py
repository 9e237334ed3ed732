"""What engines say, as Ollama's clients hear it: with an engine whose every word a test chooses."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostler.core.principals import LOCAL_ADMIN, Limits, Role
from ostler.models.records import NewModel
from tests.gateway.conftest import Reply, ScriptedEngine, Seen, serving
from tests.server import RunningOstler, running_ostler

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
HI = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def delta(reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": reason}]}


def telling(*events: dict[str, Any] | bytes, whole: bool = True) -> Reply:
    """An engine that streams these events; `whole`: and ends as it should."""

    async def reply(seen: Seen) -> None:
        await seen.start(200, "text/event-stream")
        for event in events:
            data = event if isinstance(event, bytes) else json.dumps(event).encode()
            await seen.chunk(b"data: " + data + b"\n\n")
        if whole:
            last = {"choices": [], "usage": USAGE, "timings": {"prompt_ms": 10.0, "predicted_ms": 20.0}}
            await seen.chunk(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        await seen.end()

    return reply


@dataclass
class House:
    """A server, and an engine elsewhere that serves `llamacpp` and `vllm` as one engine each would."""

    running: RunningOstler
    engine: ScriptedEngine
    http: httpx2.AsyncClient

    async def chat(self, model: str = "llamacpp", **more: Any) -> list[dict[str, Any]]:
        """The lines of an answer; the status is in the first where it is an error."""
        answer = await self.http.post("/api/chat", json={"model": model, "messages": HI, **more})
        lines = [json.loads(line) for line in answer.text.splitlines()]
        return lines if answer.status_code == 200 else [{"status": answer.status_code, **lines[0]}]

    @property
    def asked(self) -> dict[str, Any]:
        """The body that the engine got last."""
        body: dict[str, Any] = json.loads(self.engine.seen[-1].body)
        return body

    async def key(self, **more: Any) -> dict[str, str]:
        keys = self.running.ostler.services.keys
        _, token = await keys.create(f"key {len(list(keys.principals()))}", Role.USER, LOCAL_ADMIN, **more)
        return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def house_of(data_dir: Path, **settings: Any) -> AsyncIterator[House]:
    engine = ScriptedEngine()
    async with (
        serving(engine) as llamacpp,
        serving(engine) as vllm,
        running_ostler(data_dir, **settings) as running,
    ):
        services = running.ostler.services
        for name, url in (("llamacpp", llamacpp), ("vllm", vllm)):
            await services.externals.add(name, url, name, "generate", LOCAL_ADMIN)
        await services.pools.look()
        async with httpx2.AsyncClient(base_url=running.url, timeout=30) as http:
            yield House(running, engine, http)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with house_of(tmp_path / "data") as house:
        yield house


async def test_calls_of_tools_are_told_whole_with_their_arguments_as_objects(house: House) -> None:
    house.engine.reply = telling(
        delta(role="assistant", content=None),
        delta(tool_calls=[{"index": 0, "id": "a1", "function": {"name": "add", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a": 1, '}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '"b": [2]}'}}]),
        delta(tool_calls=[{"index": 1, "id": "a2", "function": {"name": "now", "arguments": "{}"}}]),
        delta("tool_calls"),
    )
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    *_, calls, last = await house.chat(tools=tools)
    assert house.asked["tools"] == tools
    told = [call["function"] for call in calls["message"]["tool_calls"]]
    assert told == [
        {"index": 0, "name": "add", "arguments": {"a": 1, "b": [2]}},
        {"index": 1, "name": "now", "arguments": {}},
    ]
    assert last["done_reason"] == "stop" and (last["prompt_eval_count"], last["eval_count"]) == (7, 2)
    (whole,) = await house.chat(tools=tools, stream=False)
    assert [call["function"] for call in whole["message"]["tool_calls"]] == told


async def test_a_call_that_makes_no_sense_is_an_error_and_not_half_a_call(house: House) -> None:
    broken = delta(tool_calls=[{"index": 0, "function": {"name": "add", "arguments": '{"a": '}}])
    house.engine.reply = telling(delta(content="let me see"), broken, delta("tool_calls"))
    first, last = await house.chat()
    assert first["message"]["content"] == "let me see" and "'add'" in last["error"]
    (refused,) = await house.chat(stream=False)
    assert refused["status"] == 502 and "'add'" in refused["error"]


@pytest.mark.parametrize("word", ["reasoning_content", "reasoning"])
async def test_thinking_stands_beside_the_answer(house: House, word: str) -> None:
    house.engine.reply = telling(
        delta(**{word: "hm, "}), delta(**{word: "so"}), delta(content="4"), delta("stop")
    )
    thought, thought_too, said, _last = await house.chat(think=True)
    assert house.asked["chat_template_kwargs"]["enable_thinking"] is True
    assert (thought["message"], thought_too["message"]["thinking"]) == (
        {"role": "assistant", "content": "", "thinking": "hm, "},
        "so",
    )
    assert said["message"] == {"role": "assistant", "content": "4"}
    (whole,) = await house.chat(stream=False, think=False)
    assert whole["message"] == {"role": "assistant", "content": "4", "thinking": "hm, so"}
    assert house.asked["chat_template_kwargs"]["enable_thinking"] is False


async def test_options_reach_each_engine_under_its_own_names(house: House) -> None:
    house.engine.reply = telling(delta(content="x"), delta("stop"))
    options = {
        "num_predict": 9,
        "top_k": 3.0,
        "repeat_penalty": 1.1,
        "stop": "a",
        "typical_p": 1,
        "mirostat": 0,
    }
    await house.chat("llamacpp", options={**options, "repeat_last_n": 5, "num_keep": 2})
    common = {"max_tokens": 9, "top_k": 3, "stop": ["a"]}
    theirs = {"repeat_penalty": 1.1, "repeat_last_n": 5, "n_keep": 2, "typical_p": 1, "mirostat": 0}
    assert house.asked.items() >= {**common, **theirs}.items()
    await house.chat("vllm", options={**options, "repeat_last_n": 5}, format="json", think="high")
    assert house.asked.items() >= {**common, "repetition_penalty": 1.1, "reasoning_effort": "high"}.items()
    assert house.asked["response_format"] == {"type": "json_object"}
    assert not house.asked.keys() & {"repeat_penalty", "repeat_last_n", "typical_p", "mirostat"}
    (refused,) = await house.chat("vllm", options={"mirostat": 2})
    assert refused["status"] == 400 and "mirostat" in refused["error"]
    await house.chat("llamacpp", options={"num_predict": -1})
    assert house.asked["max_tokens"] == -1
    await house.chat("vllm", options={"num_predict": -2})
    assert "max_tokens" not in house.asked


async def test_conversations_reach_the_engine_with_ids_and_images(house: House) -> None:
    house.engine.reply = telling(delta(content="x"), delta("stop"))
    await house.chat(
        messages=[
            {"role": "system", "content": "s"},
            {"role": "user", "content": "look", "images": [PNG]},
            {
                "role": "assistant",
                "thinking": "hm",
                "tool_calls": [
                    {"function": {"name": "a", "arguments": {"x": 1}}},
                    {"function": {"name": "b", "arguments": {}}},
                ],
            },
            {"role": "tool", "tool_name": "b", "content": "B"},
            {"role": "tool", "tool_name": "a", "content": "A"},
            {"role": "control", "content": "c"},
        ]
    )
    _, user, assistant, b, a, other = house.asked["messages"]
    assert user["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    first, second = assistant["tool_calls"]
    assert json.loads(first["function"]["arguments"]) == {"x": 1} and assistant["reasoning_content"] == "hm"
    assert (b["tool_call_id"], a["tool_call_id"]) == (second["id"], first["id"]) and first["id"] != second[
        "id"
    ]
    assert other["role"] == "user"


async def test_durations_are_the_engines_own_or_measured_here(house: House) -> None:
    house.engine.reply = telling(delta(content="x"), delta("stop"))
    *_, last = await house.chat()
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (10_000_000, 20_000_000)

    async def without_timings(seen: Seen) -> None:
        await seen.start(200, "text/event-stream")
        for event in (delta(content="x"), delta(content="y"), delta("length")):
            await seen.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        await seen.end()

    house.engine.reply = without_timings
    *_, last = await house.chat()
    assert 0 < last["prompt_eval_duration"] < last["total_duration"] and last["done_reason"] == "length"
    assert 0 <= last["eval_duration"] < last["total_duration"]
    assert not last.keys() & {"prompt_eval_count", "eval_count"}  # nobody counted


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ({"error": {"code": 500, "message": "out of memory"}}, 502, "out of memory"),
        ({"error": {"code": 400, "message": "too long"}}, 400, "too long"),
        (b"no json", 502, "no JSON"),
        (b"[1]", 502, "no JSON"),
    ],
)
async def test_an_error_in_mid_stream_is_its_last_line(
    house: House, said: Any, status: int, words: str
) -> None:
    house.engine.reply = telling(delta(content="Hel"), said, whole=False)
    first, last = await house.chat()
    assert first["message"]["content"] == "Hel" and words in last["error"] and len(last) == 1
    (whole,) = await house.chat(stream=False)
    assert whole["status"] == status and words in whole["error"]
    house.engine.reply = telling(said, whole=False)
    (early,) = await house.chat()
    assert early["status"] == status  # nothing was sent yet, so that the status still tells


async def test_an_answer_that_ends_too_early_is_never_told_as_done(house: House) -> None:
    house.engine.reply = telling(delta(content="Hel"), whole=False)
    first, last = await house.chat()
    assert first["done"] is False and "whole" in last["error"]

    async def dies(seen: Seen) -> None:
        await seen.start(200, "text/event-stream", content_length="100000")
        await seen.chunk(b"data: " + json.dumps(delta(content="Hel")).encode() + b"\n\n")
        raise RuntimeError("dies")

    house.engine.reply = dies
    first, last = await house.chat()
    assert first["message"]["content"] == "Hel" and "broke off" in last["error"]


async def test_an_engines_refusal_is_told_in_one_sentence(house: House) -> None:
    async def refuses(seen: Seen) -> None:
        await seen.json(b'{"error": {"code": 400, "message": "no such thing", "type": "x"}}', 400)

    house.engine.reply = refuses
    assert await house.chat() == [{"status": 400, "error": "no such thing"}]

    async def odd(seen: Seen) -> None:
        await seen.json(b"<html>", 500)

    house.engine.reply = odd
    assert await house.chat() == [{"status": 500, "error": "<html>"}]


async def test_a_stream_leaves_as_it_comes_and_ends_at_the_engine_when_its_client_goes(house: House) -> None:
    gone = asyncio.Event()

    async def for_ever(seen: Seen) -> None:
        await seen.start(200, "text/event-stream")
        await seen.chunk(b"data: " + json.dumps(delta(content="one")).encode() + b"\n\n")
        await seen.until_gone()
        gone.set()

    house.engine.reply = for_ever
    asked = {"model": "llamacpp", "messages": HI}
    async with house.http.stream("POST", "/api/chat", json=asked) as answer:
        async for line in answer.aiter_lines():
            assert json.loads(line)["message"]["content"] == "one"
            break
    async with asyncio.timeout(10):
        await gone.wait()


async def test_embeddings_come_in_the_order_of_their_inputs(house: House) -> None:
    async def embeds(seen: Seen) -> None:
        rows = [{"index": 1, "embedding": [0.0, 3.0, 4.0]}, {"index": 0, "embedding": [1.0, 0.0, 0.0]}]
        await seen.json(json.dumps({"data": rows, "usage": {"prompt_tokens": 5}}).encode())

    house.engine.reply = embeds
    asked = {"model": "llamacpp", "input": ["a", "b"], "dimensions": 2}
    answer = (await house.http.post("/api/embed", json=asked)).json()
    assert answer["embeddings"] == [[1.0, 0.0], [0.0, 1.0]] and answer["prompt_eval_count"] == 5
    wrong = await house.http.post("/api/embed", json={"model": "llamacpp", "input": "a"})
    assert wrong.status_code == 502 and "number of embeddings" in wrong.json()["error"]


async def test_keys_allow_lists_scopes_and_limits_hold_here_too(tmp_path: Path) -> None:
    async with house_of(tmp_path / "data", host="0.0.0.0") as house:
        house.engine.reply = telling(delta(content="x"), delta("stop"))
        asked = {"model": "llamacpp", "messages": HI}
        refused = await house.http.post("/api/chat", json=asked)
        assert refused.status_code == 401 and list(refused.json()) == ["error"]
        assert (await house.http.get("/api/tags")).status_code == 401
        assert (await house.http.get("/api/version")).status_code == 200
        other = await house.key(models=("other",))
        assert (await house.http.post("/api/chat", json=asked, headers=other)).status_code == 403
        assert (await house.http.get("/api/tags", headers=other)).json() == {"models": []}
        embeds = await house.key(scopes=("embeddings",))
        assert (await house.http.post("/api/chat", json=asked, headers=embeds)).status_code == 403
        once = await house.key(limits=Limits(requests_per_minute=1))
        assert (await house.http.post("/api/chat", json=asked, headers=once)).status_code == 200
        again = await house.http.post("/api/chat", json=asked, headers=once)
        assert again.status_code == 429 and "retry-after" in again.headers and list(again.json()) == ["error"]
        for path in ("/api/pull", "/api/create", "/api/copy"):
            low = await house.http.post(path, json={"model": "x"}, headers=other)
            assert low.status_code == 403 and "power_user" in low.json()["error"]


async def test_a_request_is_accounted_as_any_other(tmp_path: Path, demo_model: Path) -> None:
    async with running_ostler(tmp_path / "data", host="0.0.0.0") as running:
        services = running.ostler.services
        made = NewModel({"path": str(demo_model)}, name="demo", request_defaults={"max_tokens": 3})
        model = await services.models.create(made, LOCAL_ADMIN)
        key, token = await services.keys.create("one", Role.USER, LOCAL_ADMIN)
        headers = {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=running.url, timeout=60, headers=headers) as http:
            streamed = await http.post("/api/chat", json={"model": "demo", "messages": HI})
            whole = await http.post("/api/generate", json={"model": "demo", "prompt": "hi", "stream": False})
            unloaded = await http.post("/api/generate", json={"model": "demo", "keep_alive": 0})
            assert unloaded.json()["done_reason"] == "unload"
            await services.instances.start("demo", LOCAL_ADMIN)
            kept = await http.post("/api/generate", json={"model": "demo", "keep_alive": 0})
            assert kept.status_code == 403 and "power_user" in kept.json()["error"]
        last = json.loads(streamed.text.splitlines()[-1])
        assert last["eval_count"] == whole.json()["eval_count"] == 3  # the model's own default
        await running.ostler.usage_writer.flush()
        first, second, *_ = [stored.record for stored in (await services.usage.find(descending=False)).items]
        assert (first.path, first.streamed, first.completion_tokens, first.status) == (
            "/api/chat",
            True,
            3,
            200,
        )
        assert first.first_token_s is not None and first.key_id == key.id and first.model_id == model.id
        assert (second.path, second.streamed, second.prompt_tokens) == (
            "/api/generate",
            False,
            whole.json()["prompt_eval_count"],
        )
