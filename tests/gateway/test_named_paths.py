"""Requests that name their model in the path, and `inst/model` names under /v1, as llamactl has them."""

from __future__ import annotations

import asyncio
import json

import pytest

from ostler.core.principals import SYSTEM, Role
from ostler.gateway.bodies import Asked, with_model
from tests.gateway.conftest import INTERNAL_KEY, Seen, Stand

CHAT = "/llama-cpp/demo/v1/chat/completions"
PROXY = "/api/v1/instances/demo/proxy"


async def with_keys(stand: Stand, role: Role, **more: object) -> str:
    stand.settings.change(host="0.0.0.0")
    _, token = await stand.access.keys.create(f"a {role.label}", role, SYSTEM, **more)  # type: ignore[arg-type]
    return token


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/llama-cpp/demo/props", "/props"),
        ("GET", "/llama-cpp/demo/slots", "/slots"),
        ("POST", "/llama-cpp/demo/tokenize", "/tokenize"),
        ("POST", "/llama-cpp/demo/completion", "/completion"),
        ("POST", "/llama-cpp/demo/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("GET", "/llama-cpp/demo/", "/"),
        ("GET", f"{PROXY}/", "/"),
        ("DELETE", f"{PROXY}/some/thing%20else?a=%2Fb&c", "/some/thing%20else?a=%2Fb&c"),
        ("PUT", f"{PROXY}/slots/0?action=save", "/slots/0?action=save"),
    ],
)
async def test_the_engine_gets_the_rest_of_the_path_and_the_same_bytes(
    stand: Stand, method: str, path: str, asked: str
) -> None:
    body = b"" if method in ("GET", "DELETE") else b'{"big": 12345678901234567890, "x": 1.10}'
    answer = await stand.ask(method, path, body)
    assert answer.status == 200 and answer.json() == {"ok": True}
    seen = stand.engine.seen[-1]
    path, _, query = asked.partition("?")
    assert (seen.method, seen.path, seen.query.decode()) == (method, path, query) and seen.body == body
    assert seen.header("authorization") == [f"Bearer {INTERNAL_KEY}"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/llama-cpp/demo/health"),
        ("GET", "/llama-cpp/demo/tokenize"),
        ("POST", "/llama-cpp/demo/slots"),
        ("POST", "/llama-cpp/demo/v1/"),
        ("GET", "/llama-cpp/demo"),
        ("GET", f"{PROXY}/a/../b"),
        ("GET", f"{PROXY}/%2e%2e/b"),
        ("GET", f"{PROXY}/a%5cb"),
        ("GET", f"{PROXY}//elsewhere.example"),
        ("GET", "/api/v1/instances/demo"),
        ("GET", "/api/v1/instances/demo/proxy"),
        ("POST", "/api/v1/instances/demo/start"),
    ],
)
async def test_other_paths_and_those_that_are_not_clean_never_reach_an_engine(
    stand: Stand, method: str, path: str
) -> None:
    answer = await stand.raw(
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert b"inner:" in answer and not stand.engine.seen


async def test_names_with_slashes_may_be_encoded_or_not(stand: Stand) -> None:
    stand.add("org/model:Q4")
    for name in ("org/model:Q4", "org%2Fmodel:Q4", "org%2Fmodel%3AQ4"):
        assert (await stand.get(f"/llama-cpp/{name}/props")).status == 200
        assert (await stand.get(f"/api/v1/instances/{name}/proxy/health")).status == 200
    assert {seen.path for seen in stand.engine.seen} == {"/props", "/health"}


async def test_the_clients_key_never_reaches_the_engine(stand: Stand) -> None:
    token = await with_keys(stand, Role.MANAGER)
    for headers in ({"authorization": f"Bearer {token}"}, {"x_api_key": token}):
        assert (await stand.get(f"{PROXY}/health?a=1", **headers)).status == 200
    assert (await stand.get(f"{PROXY}/health?a=1&api_key={token}&b=2")).status == 200
    assert stand.engine.seen[-1].query == b"a=1&b=2"
    assert (await stand.post(f"/v1/completions?api_key={token}", '{"model": "demo"}')).status == 200
    for seen in stand.engine.seen:
        assert token not in repr((seen.path, seen.query, seen.headers, seen.body))


async def test_keys_for_inference_do_not_manage_and_are_let_in_by_their_list(stand: Stand) -> None:
    other = stand.add("other")
    token = await with_keys(stand, Role.USER, models=(f"#{other.id}",))
    key = {"authorization": f"Bearer {token}"}
    refused = await stand.get(f"{PROXY}/health", **key)
    assert refused.status == 401 and refused.json() == {
        "error": {"message": "Invalid API key", "type": "authentication_error"}
    }
    missing = await stand.get("/llama-cpp/other/props")
    assert (missing.status, missing.json()["error"]["message"]) == (401, "Missing API key")
    forbidden = await stand.get("/llama-cpp/demo/props", **key)
    assert (forbidden.status, forbidden.json()["error"]) == (403, "permission_denied")
    assert (await stand.get("/llama-cpp/other/props", **key)).status == 200
    assert len(stand.engine.seen) == 1


async def test_what_does_not_run_is_started_by_llamacpps_routes_and_not_by_the_proxy(stand: Stand) -> None:
    model = stand.add("sleepy", running=False)
    for path in ("/api/v1/instances/sleepy/proxy/health", "/llama-cpp/sleepy/"):
        told = await stand.get(path)
        assert (told.status, told.json()["error"]) == (503, "instance_not_running")
    assert not stand.instances.asked
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(stand.get("/llama-cpp/sleepy/props"))
        await stand.instances.waiting.wait()
        stand.instances.publish(model.id, stand.engine.url)
        stand.instances.may_start.set()
    assert answer.result().status == 200


async def test_looking_how_an_engine_is_does_not_count_as_using_it(stand: Stand) -> None:
    endpoint = stand.instances.endpoints[1]
    before = endpoint.last_used
    for path in (f"{PROXY}/health", f"{PROXY}/slots", "/llama-cpp/demo/props"):
        assert (await stand.get(path)).status == 200
    assert endpoint.last_used == before and endpoint.in_flight == 0
    assert (await stand.post("/llama-cpp/demo/props", "{}")).status == 200
    assert endpoint.last_used > before


async def test_unknown_names_and_other_engines_are_said_in_llamactls_shape(stand: Stand) -> None:
    stand.add("big", engine="vllm")
    for path, status in (("/llama-cpp/dmo/props", 404), ("/llama-cpp/big/props", 404)):
        told = await stand.get(path)
        assert told.status == status and told.json().keys() == {"error", "details", "hint"}
    assert (await stand.get("/llama-cpp/dmo/props")).json()["error"] == "invalid_instance"
    assert (await stand.get("/api/v1/instances/big/proxy/health")).status == 200


async def test_a_stream_by_a_path_comes_piece_by_piece_and_is_accounted(stand: Stand) -> None:
    go_on = asyncio.Event()

    async def reply(seen: Seen) -> None:
        await seen.start(content_type="text/event-stream")
        await seen.chunk(b"data: 1\n\n")
        await go_on.wait()
        await seen.end(b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n')

    stand.engine.reply = reply
    async with stand.streamed("POST", CHAT, '{"stream": true}') as response:
        first = await response.body_reader.read(9)
        assert first is not None and bytes(first) == b"data: 1\n\n"
        go_on.set()
        while await response.body_reader.read(1_000):
            pass
    (record,) = await stand.records()
    assert (record.model_name, record.path, record.prompt_tokens, record.streamed) == ("demo", CHAT, 3, True)


async def test_a_client_that_leaves_ends_its_request_at_the_engine(stand: Stand) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def reply(seen: Seen) -> None:
        await seen.start()
        await seen.chunk(b"{")
        began.set()
        await seen.until_gone()
        gone.set()

    stand.engine.reply = reply
    async with stand.leaving(CHAT, "{}"):
        await began.wait()
    async with asyncio.timeout(10):
        await gone.wait()


async def test_an_instance_and_its_model_are_told_apart_at_the_first_slash(stand: Stand) -> None:
    stand.add("demo/whole")
    body = b'{"n": 12345678901234567890, "model" : "demo/inner", "x": {"model": "kept"}, "t": 1.10}'
    assert (await stand.post("/v1/chat/completions", body)).status == 200
    assert stand.engine.seen[-1].body == body.replace(b'"demo/inner"', b'"demo"')
    assert (await stand.post("/v1/chat/completions", '{"model": "demo/whole"}')).status == 200
    assert json.loads(stand.engine.seen[-1].body) == {"model": "demo/whole"}
    told = await stand.post("/v1/chat/completions", '{"model": "nobody/demo"}')
    assert told.status == 404


async def test_a_form_says_its_instance_too_and_its_file_stays_as_it_is(stand: Stand) -> None:
    def form(model: str) -> bytes:
        return (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff\r\n'
            b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + model.encode() + b"\r\n--b--\r\n"
        )

    answer = await stand.ask(
        "POST",
        "/v1/audio/transcriptions",
        form("demo/whisper"),
        content_type="multipart/form-data; boundary=b",
    )
    assert answer.status == 200 and stand.engine.seen[-1].body == form("demo")


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ('{"model":"a/b"}', '{"model":"n"}'),
        ('{ "mod\\u0065l" : "a/b" , "model": "a/b" }', '{ "mod\\u0065l" : "n" , "model": "n" }'),
        ('{"s": "\\"model\\": \\"a/b\\"", "model": "a/b"}', '{"s": "\\"model\\": \\"a/b\\"", "model": "n"}'),
        (
            '{"model": "a/b", "l": [1e5, {"model": 1}], "ü": "é"}',
            '{"model": "n", "l": [1e5, {"model": 1}], "ü": "é"}',
        ),
    ],
)
def test_only_the_models_own_name_is_replaced(body: str, after: str) -> None:
    asked = Asked("a/b", json.loads(body))
    assert with_model(body.encode(), asked, "n", b"application/json").decode() == after
    assert asked.json is not None and asked.json["model"] == "n"
