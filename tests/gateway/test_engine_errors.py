"""Engines' errors in the words that OpenAI clients know; the bodies are what real engines said."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import Seen, Stand

CHAT = "/v1/chat/completions"
ASK = '{"model":"demo"}'

LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
NO_SLOT = b'{"error":{"code":503,"message":"no slot available","type":"unavailable_error"}}'
TOO_LONG = (
    b'{"error":{"code":400,"message":"request (40002 tokens) exceeds the available context size (1024 '
    b'tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":40002,"n_ctx":1024}}'
)
FULL = b'{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}'
EMBEDDED_TOO_LONG = (
    b'{"error":{"code":500,"message":"input (2003 tokens) is too large to process. increase the physical '
    b'batch size (current batch size: 512)","type":"server_error"}}'
)
VLLM_TOO_LONG = (
    b'{"error":{"message":"This model\'s maximum context length is 256 tokens. However, your prompt contains '
    b'6027 characters","type":"BadRequestError","param":"input_text","code":400}}'
)
NO_TEMPLATE = (
    b'{"object":"error","message":"As of transformers v4.44, default chat template is no longer allowed, so '
    b'you must provide a chat template","type":"BadRequestError","code":400}'
)


@pytest.mark.parametrize(
    ("said", "body", "status", "kind", "code", "wait"),
    [
        (503, LOADING, 503, "service_unavailable", "model_loading", "30"),
        (503, NO_SLOT, 429, "rate_limit_error", "slot_unavailable", "5"),
        (400, TOO_LONG, 400, "invalid_request_error", "context_length_exceeded", None),
        (500, EMBEDDED_TOO_LONG, 400, "invalid_request_error", "context_length_exceeded", None),
        (500, FULL, 400, "invalid_request_error", "context_length_exceeded", None),
        (400, VLLM_TOO_LONG, 400, "invalid_request_error", "context_length_exceeded", None),
        (400, NO_TEMPLATE, 400, "invalid_request_error", "chat_template_missing", None),
    ],
)
async def test_an_engines_error_has_openais_words(
    stand: Stand, said: int, body: bytes, status: int, kind: str, code: str, wait: str | None
) -> None:
    async def reply(seen: Seen) -> None:
        await seen.json(body, said)

    stand.engine.reply = reply
    answer = await stand.post(CHAT, ASK)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (status, kind, code)
    assert answer.headers.get("retry-after") == wait
    assert answer.error["message"] and "param" in answer.error
    assert (await stand.records())[0].status == status


async def test_what_the_engine_counted_stays_beside_it_and_advice_is_given(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.json(TOO_LONG if b"long" in seen.body else NO_TEMPLATE, 400)

    stand.engine.reply = reply
    long = await stand.post(CHAT, '{"model":"demo","x":"long"}')
    assert (long.error["n_prompt_tokens"], long.error["n_ctx"]) == (40002, 1024)
    assert "40002 tokens" in long.error["message"]
    assert "chat_template" in (await stand.post(CHAT, ASK)).error["message"]


async def test_other_errors_and_other_clients_stay_as_they_were(stand: Stand) -> None:
    plain = b'{"error":{"code":400,"message":"no","type":"invalid_request_error"}}'

    async def reply(seen: Seen) -> None:
        await seen.json(TOO_LONG if seen.path == "/v1/messages" else plain, 400)

    stand.engine.reply = reply
    assert (await stand.post(CHAT, ASK)).body == plain
    anthropic = (await stand.post("/v1/messages", ASK)).json()
    assert anthropic["type"] == "error" and "40002 tokens" in anthropic["error"]["message"]
