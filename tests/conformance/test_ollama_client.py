"""Everything that the `ollama` client can do, done with it, against a server with the real llama.cpp.

Sync and async, in the order of the client's own documentation: https://github.com/ollama/ollama-python.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import ollama
import pytest

from tests.hub.server import HubServer
from tests.serving import ServerProcess

pytestmark = pytest.mark.real

HI = [{"role": "user", "content": "hi"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="module")
def server(
    hub: HubServer, tmp_path_factory: pytest.TempPathFactory, demo_model: Path
) -> Iterator[ServerProcess]:
    """A server with the model `demo`, and `embedder`, which only embeds."""
    folder = tmp_path_factory.mktemp("ollama")
    hub.add_repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": demo_model, "README.md": b"# Tiny"})
    (folder / "data" / "models").mkdir(parents=True)
    shutil.copy(demo_model, folder / "data" / "models" / "demo.gguf")
    surroundings = {
        "HOME": str(folder),
        "OSTLER_OFFLINE": "0",
        "OSTLER_HF_ENDPOINT": hub.endpoint,
        "OSTLER_DISK_RESERVE_BYTES": "0",
    }
    server = ServerProcess(folder / "data", environment=surroundings).start()
    for name, options in (("demo", {}), ("embedder", {"embeddings": True, "pooling": "mean"})):
        model = {"name": name, "source": {"path": "demo.gguf"}, "options": options}
        server.ask("/ostler/v1/models", model)
    yield server
    server.end_everything()


@pytest.fixture(params=["sync", "async"])
def ask(server: ServerProcess, request: pytest.FixtureRequest) -> Ask:
    """Call a method of the client by name; a stream comes back as a list."""

    def of_sync(method: str, *args: Any, **kwargs: Any) -> Any:
        with ollama.Client(host=server.url) as client:
            answer = getattr(client, method)(*args, **kwargs)
            return list(answer) if inspect.isgenerator(answer) else answer

    async def of_async(method: str, *args: Any, **kwargs: Any) -> Any:
        async with ollama.AsyncClient(host=server.url) as client:
            answer = await getattr(client, method)(*args, **kwargs)
            return [part async for part in answer] if inspect.isasyncgen(answer) else answer

    def ask(*args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return of_sync(*args, **kwargs)
        return asyncio.run(of_async(*args, **kwargs))

    return ask


def refused(ask: Ask, *args: Any, **kwargs: Any) -> tuple[int, str]:
    """The status and the words of a refusal."""
    with pytest.raises(ollama.ResponseError) as caught:
        ask(*args, **kwargs)
    return caught.value.status_code, caught.value.error


def assert_true_numbers(answer: Any) -> None:
    """Counts and durations are there and go together."""
    assert answer.done is True and answer.prompt_eval_count > 0 and answer.eval_count > 0
    assert 0 < answer.eval_duration < answer.total_duration
    assert 0 <= answer.load_duration < answer.total_duration
    assert answer.prompt_eval_duration < answer.total_duration


# chat


def test_chat_answers(ask: Ask) -> None:
    answer = ask("chat", "demo", HI)
    assert answer.message.role == "assistant" and answer.message.content.startswith("Hello")
    assert answer.model == "demo" and answer.done_reason == "stop" and answer.created_at.endswith("Z")
    assert_true_numbers(answer)


def test_chat_streams_piece_by_piece_what_it_says_at_once(ask: Ask) -> None:
    whole = ask("chat", "demo", HI, options={"seed": 7, "temperature": 0})
    parts = ask("chat", "demo", HI, stream=True, options={"seed": 7, "temperature": 0})
    assert len(parts) > 3 and "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert_true_numbers(parts[-1])


def test_chat_heeds_options(ask: Ask) -> None:
    short = ask("chat", "demo", HI, options={"num_predict": 2})
    assert (short.eval_count, short.done_reason) == (2, "length")
    stopped = ask("chat", "demo", HI, options={"stop": ["!"], "temperature": 0})
    assert stopped.message.content == "Hello" and stopped.done_reason == "stop"
    everything = {
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.05,
        "typical_p": 0.7,
        "repeat_last_n": 33,
        "tfs_z": 1.0,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 1.0,
        "seed": 42,
        "mirostat": 1,
        "mirostat_tau": 0.8,
        "mirostat_eta": 0.6,
        "penalize_newline": True,
        "num_keep": 5,
        "num_ctx": 512,
        "num_batch": 2,
        "num_gpu": 1,
        "main_gpu": 0,
        "num_thread": 8,
        "use_mmap": True,
        "numa": False,
        "num_predict": -1,
        "unheard_of": 3,
    }
    assert ask("chat", "demo", HI, options=everything).done


def test_a_context_that_does_not_run_is_refused_in_words(ask: Ask) -> None:
    status, words = refused(ask, "chat", "demo", HI, options={"num_ctx": 100_000})
    assert status == 400 and "1024" in words and "100000" in words


def test_a_conversation_that_is_too_long_is_refused_in_words(ask: Ask) -> None:
    status, words = refused(ask, "chat", "demo", [{"role": "user", "content": "hi " * 3000}])
    assert status == 400 and "context" in words


def test_chat_answers_in_json_where_it_is_asked_to(ask: Ask) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = ask("chat", "demo", HI, format=schema, options={"temperature": 0})
    assert isinstance(json.loads(answer.message.content)["n"], int)
    loose = ask("chat", "demo", HI, format="json", options={"num_predict": 40})
    assert loose.message.content.lstrip().startswith(("{", "["))


def test_chat_tells_logprobs(ask: Ask) -> None:
    answer = ask("chat", "demo", HI, logprobs=True, top_logprobs=2, options={"num_predict": 3})
    assert len(answer.logprobs) == 3 and all(len(one.top_logprobs) == 2 for one in answer.logprobs)
    assert "".join(one.token for one in answer.logprobs) == answer.message.content
    parts = ask("chat", "demo", HI, logprobs=True, stream=True, options={"num_predict": 3})
    assert sum(len(part.logprobs or ()) for part in parts) == 3


def test_tools_thinking_and_earlier_calls_are_taken(ask: Ask) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
          a: one
          b: the other
        """
        return a + b

    conversation = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what is 2 and 2"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2, "b": 2}}}]},
        {"role": "tool", "content": "4", "tool_name": "add"},
    ]
    for think in (True, False, "low"):
        assert ask("chat", "demo", conversation, tools=[add], think=think).done
    status, words = refused(ask, "chat", "demo", HI, think="much")
    assert status == 400 and "low" in words


def test_images_are_refused_by_a_model_that_does_not_see(ask: Ask) -> None:
    seen = [{"role": "user", "content": "what is it", "images": [PNG]}]
    status, words = refused(ask, "chat", "demo", seen)
    assert status >= 400 and "image" in words
    status, words = refused(
        ask, "chat", "demo", [{"role": "user", "content": "", "images": [PNG[:4] + "AAAA"]}]
    )
    assert status == 400 and "no image" in words


# generate


def test_generate_answers_and_streams(ask: Ask) -> None:
    answer = ask("generate", "demo", "hi", options={"temperature": 0})
    assert answer.response.startswith("Hello")
    assert_true_numbers(answer)
    parts = ask("generate", "demo", "hi", stream=True, options={"temperature": 0})
    assert "".join(part.response for part in parts) == answer.response
    assert_true_numbers(parts[-1])


def test_generate_takes_a_system_prompt_a_format_and_a_raw_prompt(ask: Ask) -> None:
    plain = ask("generate", "demo", "hi", options={"num_predict": 1})
    with_system = ask("generate", "demo", "hi", system="be nice", options={"num_predict": 1})
    raw = ask("generate", "demo", "hi", raw=True, options={"num_predict": 1}, logprobs=True)
    assert with_system.prompt_eval_count > plain.prompt_eval_count > raw.prompt_eval_count
    assert len(raw.logprobs) == 1
    told = ask("generate", "demo", "hi", raw=True, format={"type": "integer"}, options={"num_predict": 3})
    assert told.response.strip().lstrip("-").isdigit()


def test_generate_says_what_it_cannot_do(ask: Ask) -> None:
    assert "template" in refused(ask, "generate", "demo", "hi", template="{{ .Prompt }}")[1]
    assert "context" in refused(ask, "generate", "demo", "hi", context=[1, 2])[1]
    status, words = refused(ask, "generate", "demo", "def f(", suffix="return 1")
    assert status >= 400 and "nfill" in words
    assert refused(ask, "generate", "demo", "hi", options={"temperature": "hot"})[0] == 400


# loading, unloading, ps


def test_an_empty_request_loads_and_one_with_keep_alive_0_unloads(ask: Ask) -> None:
    assert ask("generate", "demo").done_reason == "load"
    assert ask("chat", "demo").done_reason == "load"
    (running,) = [model for model in ask("ps").models if model.model == "demo"]
    assert running.name == "demo" and running.context_length == 1024 and running.size > running.size_vram
    assert running.expires_at is not None and running.details.family == "llama"
    assert ask("generate", "demo", keep_alive=0).done_reason == "unload"
    assert "demo" not in [model.model for model in ask("ps").models]
    assert ask("chat", "demo", keep_alive=0).done_reason == "unload"


def test_keep_alive_is_a_wish_within_the_servers_limits(ask: Ask) -> None:
    for wish in (0.5, "10m", -1, "24h"):
        assert ask("chat", "demo", HI, keep_alive=wish).done
    assert refused(ask, "chat", "demo", HI, keep_alive="soon")[0] == 400
    ask("generate", "demo", keep_alive=0)


# embeddings


def test_embeddings_one_many_short_and_none(ask: Ask) -> None:
    (one,) = ask("embed", "embedder", "hello").embeddings
    answer = ask("embed", "embedder", ["hello", "other words"])
    assert len(answer.embeddings) == 2 and answer.prompt_eval_count > 2 and answer.total_duration > 0
    assert answer.embeddings[0] == pytest.approx(one, abs=1e-3)
    (short,) = ask("embed", "embedder", "hello", dimensions=8).embeddings
    assert len(short) == 8 and sum(number**2 for number in short) == pytest.approx(1, abs=1e-3)
    assert ask("embed", "embedder", []).embeddings == []
    old = ask("embeddings", "embedder", "hello").embedding
    assert old == pytest.approx(one, abs=1e-3)
    assert ask("embeddings", "embedder", "").embedding == []
    assert refused(ask, "embed", "embedder", "hello " * 2000)[0] == 400


def test_a_model_that_does_not_embed_says_so(ask: Ask) -> None:
    assert "embeddings" in refused(ask, "embed", "demo", "hello")[1]


# list, show


def test_list_and_show_tell_of_models(ask: Ask) -> None:
    listed = {model.model: model for model in ask("list").models}
    assert {"demo", "embedder"} <= listed.keys()
    demo = listed["demo"]
    assert demo.size == 2_066_880 and len(demo.digest) >= 40 and demo.modified_at is not None
    assert demo.details.quantization_level == "Q8_0" and demo.details.parameter_size == "1.90M"
    shown = ask("show", "demo")
    assert "completion" in shown.capabilities and shown.modelinfo["llama.context_length"] == 1024
    assert "messages" in shown.template and shown.license == "apache-2.0"
    assert shown.modelfile.splitlines()[1].startswith("FROM ")
    assert ask("show", "embedder").details.format == "gguf"


@pytest.mark.parametrize("name", ["demo:latest", "DEMO", "Demo:Latest"])
def test_a_name_means_the_same_with_latest_and_in_any_case(ask: Ask, name: str) -> None:
    assert ask("show", name).details.family == "llama"
    answer = ask("chat", name, HI, options={"num_predict": 1})
    assert answer.model == name


def test_an_unknown_name_is_not_found_with_the_near_ones(ask: Ask) -> None:
    for method, args in (
        ("chat", (HI,)),
        ("generate", ("x",)),
        ("show", ()),
        ("delete", ()),
        ("embed", ("x",)),
    ):
        status, words = refused(ask, method, "demp", *args)
        assert status == 404 and "'demp' not found" in words and "demo" in words
    assert refused(ask, "copy", "demp", "other")[0] == 404


# pull, push


def test_pull_tells_how_it_gets_on_and_a_second_pull_has_nothing_to_do(ask: Ask, hub: HubServer) -> None:
    lines = ask("pull", "hf.co/org/tiny-GGUF:Q8_0", stream=True)
    assert lines[0].status == "pulling manifest" and lines[-1].status == "success"
    told = [line for line in lines if line.digest]
    assert told[-1].digest.startswith("sha256:") and told[-1].completed == told[-1].total == 2_066_880
    fetched = len(hub.requests_for("/cdn/*", method="GET"))
    assert ask("pull", "org/tiny-GGUF:Q8_0").status == "success"
    assert len(hub.requests_for("/cdn/*", method="GET")) == fetched


def test_what_was_pulled_is_listed_served_and_deleted_with_its_files(ask: Ask, server: ServerProcess) -> None:
    ask("pull", "hf.co/org/tiny-GGUF:Q8_0")
    assert "org/tiny-GGUF:Q8_0" in [model.model for model in ask("list").models]
    for name in (
        "hf.co/org/tiny-GGUF:Q8_0",
        "org/tiny-GGUF:q8_0",
        "org/tiny-GGUF",
        "hf.co/org/tiny-GGUF:latest",
    ):
        assert ask("show", name).details.family == "llama"
    answer = ask("chat", "hf.co/org/tiny-GGUF:Q8_0", HI, options={"num_predict": 1})
    assert answer.model == "hf.co/org/tiny-GGUF:Q8_0" and answer.eval_count == 1
    assert "org/tiny-GGUF:Q8_0" in [model.model for model in ask("ps").models]
    assert ask("delete", "hf.co/org/tiny-GGUF:Q8_0").status == "success"
    assert "org/tiny-GGUF:Q8_0" not in [model.model for model in ask("list").models]
    assert not list(server.data_dir.glob("hub/**/*.gguf"))
    ask("pull", "org/tiny-GGUF")
    assert ask("delete", "org/tiny-GGUF").status == "success"  # also one that was never used
    assert refused(ask, "delete", "org/tiny-GGUF")[0] == 404


def test_what_cannot_be_pulled_is_said(ask: Ask) -> None:
    status, words = refused(ask, "pull", "llama3.2")
    assert status == 404 and "hf.co/org/repo" in words
    assert refused(ask, "pull", "hf.co/org/nothing")[0] == 404
    assert refused(ask, "pull", "org/tiny-GGUF:Q2_K", stream=True)[0] == 404
    assert refused(ask, "pull", "a/b/c")[0] == 400


def test_a_pull_goes_on_when_its_client_has_gone(
    hub: HubServer, server: ServerProcess, demo_model: Path
) -> None:
    hub.add_repo("org/slow-GGUF", {"slow-Q8_0.gguf": demo_model.read_bytes()[:-1] + b"\1"})
    stalled = hub.faults.stall("*slow-Q8_0.gguf", host="cdn", after_bytes=4096)
    with ollama.Client(host=server.url) as client:
        lines = client.pull("org/slow-GGUF", stream=True)
        assert next(lines).status == "pulling manifest"
        assert stalled.reached.wait(20)
    open_jobs = [job for job in server.ask("/ostler/v1/jobs")["items"] if "slow" in job["title"]]
    assert [job["state"] for job in open_jobs] == ["running"]
    stalled.release()
    with ollama.Client(host=server.url) as client:
        assert client.pull("org/slow-GGUF").status == "success"
    assert [job["title"] for job in server.ask("/ostler/v1/jobs")["items"] if "slow" in job["title"]][0:1]


def test_push_is_refused_in_words(ask: Ask) -> None:
    status, words = refused(ask, "push", "demo")
    assert status == 501 and "pushed" in words


# create, copy, delete, blobs


def test_a_model_is_made_of_an_uploaded_file_and_goes_with_it(
    ask: Ask, server: ServerProcess, demo_model: Path
) -> None:
    digest = ask("create_blob", demo_model)
    assert digest == "sha256:" + hashlib.sha256(demo_model.read_bytes()).hexdigest()
    lines = ask(
        "create",
        "mine",
        files={"mine.gguf": digest},
        system="be nice",
        parameters={"temperature": 0.1, "num_ctx": 256, "stop": ["z"], "num_predict": 4},
        license="mine",
        messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        stream=True,
    )
    assert lines[-1].status == "success"
    shown = ask("show", "mine")
    assert "num_ctx" in shown.parameters and '"z"' in shown.parameters and shown.license == "mine"
    assert 'SYSTEM """be nice"""' in shown.modelfile
    answer = ask("chat", "mine", HI)
    plain = ask("chat", "demo", HI)
    assert answer.eval_count <= 4 and answer.prompt_eval_count > plain.prompt_eval_count + 5
    assert ask("create", "mine", from_="mine", system="be short").status == "success"
    assert "be short" in ask("show", "mine").modelfile
    server.ask("/ostler/v1/models/mine/start", {})
    assert refused(ask, "delete", "mine")[0] == 409  # a person keeps it
    ask("generate", "mine", keep_alive=0)
    assert ask("generate", "mine").done_reason == "load"  # a request wants it, and none is there now
    (file,) = (server.data_dir / "reshaped").glob("sha256-*/mine.gguf")
    assert ask("delete", "mine").status == "success" and not file.exists()


def test_a_model_is_made_of_another_and_its_files_are_kept(ask: Ask, server: ServerProcess) -> None:
    assert ask("create", "child", from_="demo", parameters={"num_predict": 2}).status == "success"
    assert ask("generate", "child", "hi").eval_count == 2
    assert refused(ask, "chat", "child", HI, options={"num_ctx": 100_000})[0] == 400
    assert ask("copy", "child", "grandchild").status == "success"
    assert refused(ask, "copy", "child", "demo")[0] == 409
    ask("generate", "child", keep_alive=0)
    for name in ("child", "grandchild"):
        assert ask("delete", name).status == "success"
    assert (server.data_dir / "models" / "demo.gguf").exists()


def test_what_cannot_be_made_is_said(ask: Ask) -> None:
    unknown = "sha256:" + "0" * 64
    assert refused(ask, "create", "no", files={"a.gguf": unknown})[0] == 404
    assert refused(ask, "create", "no", files={"../a.gguf": unknown})[0] == 400
    assert refused(ask, "create", "demo", from_="embedder")[0] == 409
    assert refused(ask, "create", "no", from_="nothing")[0] == 404
    assert "quantize" in refused(ask, "create", "no", from_="demo", quantize="q4_K_M")[1]
    assert "adapters" in refused(ask, "create", "no", from_="demo", adapters={"a": unknown})[1]
    assert "templates" in refused(ask, "create", "no", from_="demo", template="{{ .Prompt }}")[1]
    assert refused(ask, "create", "no")[0] == 400
    assert "no" not in [model.model for model in ask("list").models]


# beside the client


def test_blobs_are_kept_only_if_their_hash_is_right(server: ServerProcess) -> None:
    content = b"no model"
    right = f"/api/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
    with httpx2.Client(base_url=server.url) as http:
        assert http.head(right).status_code == 404
        wrong = http.post(f"/api/blobs/sha256:{'1' * 64}", content=content)
        assert wrong.status_code == 409 and "hash" in wrong.json()["error"]
        assert http.post("/api/blobs/nothing", content=content).status_code == 400
        assert http.post(right, content=content).status_code == 201
        assert http.head(right).status_code == http.post(right, content=content).status_code == 200
        made = http.post("/api/create", json={"model": "no", "files": {"a.gguf": right[11:]}})
        assert made.status_code == 400 and "GGUF" in made.json()["error"]
        assert http.head(right).status_code == 200
    assert not list((server.data_dir / "reshaped").glob("**/part-*"))


def test_curl_as_the_documentation_has_it_is_understood(server: ServerProcess) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    with httpx2.Client(base_url=server.url, headers=form) as http:
        said = http.post("/api/generate", content=json.dumps({"model": "demo", "prompt": "hi"}))
        lines = [json.loads(line) for line in said.text.splitlines()]
        assert said.headers["content-type"] == "application/x-ndjson" and lines[-1]["done"]
        assert http.post("/api/show", content='{"name": "demo"}').status_code == 200
        assert http.get("/api/version").json()["version"].count(".") == 2
        assert http.get("/").text == "Ostler is running" and http.head("/").status_code == 200
        gone = http.get("/api/nothing")
        assert gone.status_code == 404 and list(gone.json()) == ["error"]
        assert http.get("/api/chat").status_code == 405
        odd = http.post("/api/generate", content='{"model": "demo", "prompt": "hi", "format": "xml"}')
        assert odd.status_code == 400 and "schema" in odd.json()["error"]
        tags = http.get("/api/tags").json()["models"]
        assert all(model["name"] == model["model"] for model in tags)


def test_a_client_that_asks_for_events_gets_events(server: ServerProcess) -> None:
    asked = {"model": "demo", "messages": HI}
    with httpx2.Client(base_url=server.url) as http:
        said = http.post("/api/chat", json=asked, headers={"accept": "text/event-stream"})
    assert said.headers["content-type"] == "text/event-stream"
    events = [json.loads(part.removeprefix("data: ")) for part in said.text.split("\n\n") if part]
    assert events[-1]["done"] and events[0]["message"]["content"] == "Hello"
