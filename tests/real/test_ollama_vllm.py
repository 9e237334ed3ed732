"""The `ollama` client's API with a real vLLM (built for the CPU) behind it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from tests.serving import ServerProcess

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
SMALL = {"context_length": 256, "enforce_eager": True, "cpu_kv_cache_gib": 1}
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server(vllm: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with `small`, and `embedder`, which only embeds, of the same safetensors folder."""
    folder = tmp_path_factory.mktemp("ollama-vllm")
    shutil.copytree(shared / "demo-model" / "hf", folder / "data" / "models" / "small")
    surroundings = {
        "HOME": str(folder),
        "OSTLER_VLLM_COMMAND": str(vllm),
        "OSTLER_REQUEST_WAIT_S": "600",
        "OSTLER_START_TIMEOUT_S": "600",
    }
    server = ServerProcess(folder / "data", environment=surroundings).start()
    embeds = {"runner": "pooling", "convert": "embed"}
    for name, more in (("small", {}), ("embedder", embeds)):
        model = {"name": name, "source": {"path": "small"}, "options": {**SMALL, **more}}
        server.ask("/ostler/v1/models", model)
    yield server
    server.end_everything()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url, timeout=900) as client:
        yield client


def test_chat_answers_and_streams(client: ollama.Client) -> None:
    whole = client.chat("small", HI, options={"temperature": 0, "num_predict": 6})
    assert whole.message.content and whole.done_reason in ("stop", "length")
    assert whole.prompt_eval_count and whole.eval_count and whole.total_duration
    parts = list(client.chat("small", HI, stream=True, options={"temperature": 0, "num_predict": 6}))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    last = parts[-1]
    assert last.done and last.eval_count == whole.eval_count
    assert last.prompt_eval_duration and last.total_duration
    assert 0 < last.prompt_eval_duration < last.total_duration


def test_options_reach_vllm_and_what_it_has_not_is_refused(client: ollama.Client) -> None:
    options = {
        "num_predict": 2,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 3,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "stop": ["zzz"],
        "num_thread": 2,
        "repeat_last_n": 64,
        "mirostat": 0,
    }
    answer = client.chat("small", HI, options=options, think=False)
    assert (answer.eval_count, answer.done_reason) == (2, "length")
    for asked in ({"mirostat": 2}, {"num_ctx": 100_000}):
        with pytest.raises(ollama.ResponseError) as refused:
            client.chat("small", HI, options=asked)
        assert refused.value.status_code == 400 and next(iter(asked)) in refused.value.error
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat("small", [{"role": "user", "content": "hi " * 2000}])
    assert refused.value.status_code == 400 and "context" in refused.value.error


def test_generate_raw_formats_and_logprobs(client: ollama.Client) -> None:
    plain = client.generate("small", "hi", options={"num_predict": 2})
    raw = client.generate("small", "hi", raw=True, options={"num_predict": 2}, logprobs=True, top_logprobs=2)
    assert plain.prompt_eval_count and raw.prompt_eval_count
    assert raw.prompt_eval_count < plain.prompt_eval_count
    assert raw.logprobs and "".join(one.token for one in raw.logprobs) == raw.response
    told = client.chat("small", HI, logprobs=True, top_logprobs=2, options={"num_predict": 2})
    assert told.logprobs and len(told.logprobs) == 2 and len(told.logprobs[0].top_logprobs or ()) == 2
    number = client.generate("small", "hi", format={"type": "integer"}, options={"num_predict": 3})
    assert isinstance(json.loads(number.response or ""), int)
    loose = client.chat("small", HI, format="json", options={"num_predict": 20})
    assert (loose.message.content or "").lstrip().startswith(("{", "["))
    with pytest.raises(ollama.ResponseError) as refused:
        client.generate("small", "a", suffix="b")
    assert refused.value.status_code == 501


def test_it_is_listed_shown_loaded_and_unloaded(client: ollama.Client) -> None:
    listed = {model.model: model for model in client.list().models}
    details = listed["small"].details
    assert details is not None and details.format == "safetensors"
    shown = client.show("small")
    assert shown.modelinfo and shown.modelinfo["general.parameter_count"] > 1_000_000
    assert client.generate("small").done_reason == "load"
    (running,) = client.ps().models
    assert running.model == "small" and running.context_length == 256
    assert client.generate("small", keep_alive=0).done_reason == "unload"
    assert client.ps().models == []


def test_embeddings(client: ollama.Client) -> None:
    answer = client.embed("embedder", ["hello", "other words"])
    assert len(answer.embeddings) == 2 and answer.prompt_eval_count
    (short,) = client.embed("embedder", "hello", dimensions=8).embeddings
    assert len(short) == 8
    assert len(client.embeddings("embedder", "hello").embedding) == len(answer.embeddings[0])
    long = "hello " * 1000
    assert len(client.embed("embedder", long).embeddings) == 1
    with pytest.raises(ollama.ResponseError) as refused:
        client.embed("embedder", long, truncate=False)
    assert refused.value.status_code == 400
    client.generate("embedder", keep_alive=0)
