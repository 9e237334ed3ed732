from __future__ import annotations

import asyncio

from ostler.core.principals import LOCAL_ADMIN, Limits, Role
from tests.gateway.conftest import Seen, Stand

CHAT = "/v1/chat/completions"
OK = '{"model":"demo"}'


async def _key(stand: Stand, models: tuple[str, ...] | None = None, **limits: int) -> str:
    _, token = await stand.access.keys.create(
        "a key", Role.USER, LOCAL_ADMIN, models=models, limits=Limits(**limits)
    )
    return token


async def test_a_key_that_is_not_known_is_refused(stand: Stand) -> None:
    answer = await stand.post(CHAT, OK, authorization="Bearer ostler-" + "x" * 43)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.error["type"] == "authentication_error"
    assert not stand.engine.seen


async def test_without_loopback_nobody_comes_in_without_a_key(stand: Stand) -> None:
    stand.settings.change(host="0.0.0.0")
    key = await _key(stand)
    assert (await stand.post(CHAT, OK)).status == 401
    assert (await stand.get("/v1/models")).status == 401
    assert (await stand.post(CHAT, OK, authorization=f"Bearer {key}")).status == 200
    assert (await stand.post("/v1/messages", OK, x_api_key=key)).status == 200


async def test_a_key_reaches_only_the_models_on_its_list(stand: Stand) -> None:
    stand.add("qwen", aliases=("nick",))
    key = await _key(stand, models=("q*",))
    bearer = f"Bearer {key}"
    assert (await stand.post(CHAT, '{"model":"qwen"}', authorization=bearer)).status == 200
    assert (await stand.post(CHAT, '{"model":"nick"}', authorization=bearer)).status == 200
    refused = await stand.post(CHAT, OK, authorization=bearer)
    assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
    listed = await stand.get("/v1/models", authorization=bearer)
    assert [model["id"] for model in listed.json()["data"]] == ["qwen"]


async def test_a_key_over_its_rate_is_told_when_to_come_back(stand: Stand) -> None:
    key = await _key(stand, requests_per_minute=2)
    answers = [await stand.post(CHAT, OK, authorization=f"Bearer {key}") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].error["type"] == "rate_limit_error"


async def test_a_place_of_a_key_is_free_again_after_its_request(stand: Stand) -> None:
    key = await _key(stand, concurrency=1)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def reply(seen: Seen) -> None:
        arrived.set()
        await go_on.wait()
        await seen.json(b"{}")

    stand.engine.reply = reply
    first = asyncio.create_task(stand.post(CHAT, OK, authorization=f"Bearer {key}"))
    await arrived.wait()
    assert (await stand.post(CHAT, OK, authorization=f"Bearer {key}")).status == 429
    go_on.set()
    assert (await first).status == 200
    assert (await stand.post(CHAT, OK, authorization=f"Bearer {key}")).status == 200


async def test_a_key_for_embeddings_does_not_chat(stand: Stand) -> None:
    _, token = await stand.access.keys.create("e", Role.USER, LOCAL_ADMIN, scopes=["embeddings"])
    bearer = f"Bearer {token}"
    assert (await stand.post("/v1/embeddings", OK, authorization=bearer)).status == 200
    for path in (CHAT, "/v1/completions", "/v1/messages", "/v1/images/generations", "/v1/whatever"):
        refused = await stand.post(path, OK, authorization=bearer)
        assert refused.status == 403, path
        if path == CHAT:
            assert refused.error["code"] == "insufficient_scope"
    assert (await stand.get("/v1/models", authorization=bearer)).status == 200


async def test_streams_over_a_keys_limit_are_refused_and_free_again_at_their_end(stand: Stand) -> None:
    key = await _key(stand, concurrent_streams=1)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def reply(seen: Seen) -> None:
        arrived.set()
        await go_on.wait()
        await seen.json(b"{}")

    stand.engine.reply = reply
    bearer = f"Bearer {key}"
    streamed = '{"model":"demo","stream":true}'
    first = asyncio.create_task(stand.post(CHAT, streamed, authorization=bearer))
    await arrived.wait()
    assert (await stand.post(CHAT, streamed, authorization=bearer)).status == 429
    go_on.set()
    assert (await first).status == 200
    assert (await stand.post(CHAT, OK, authorization=bearer)).status == 200
    assert (await stand.post(CHAT, streamed, authorization=bearer)).status == 200


async def test_a_key_that_used_its_tokens_of_the_day_is_refused_until_tomorrow(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.json(b'{"usage":{"prompt_tokens":40,"completion_tokens":60}}')

    stand.engine.reply = reply
    bearer = f"Bearer {await _key(stand, tokens_per_day=150)}"
    answers = [await stand.post(CHAT, OK, authorization=bearer) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert "150 tokens of today" in answers[2].error["message"]


async def test_an_unknown_model_is_answered_with_near_names_of_those_one_may_use(stand: Stand) -> None:
    stand.add("qwen3-8b")
    stand.add("qwen3-8c-secret")
    key = await _key(stand, models=("qwen3-8b",))
    answer = await stand.post(CHAT, '{"model":"qwen3-8"}', authorization=f"Bearer {key}")
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert "qwen3-8b" in answer.error["message"] and "secret" not in answer.error["message"]
