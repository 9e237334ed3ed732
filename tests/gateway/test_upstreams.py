"""Engines elsewhere: found by what they serve, shared, left alone when they fail, never taken for another."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from prometheus_client import generate_latest

from ostler.core.principals import LOCAL_ADMIN, Role
from ostler.upstreams.entries import External
from tests.gateway.conftest import ScriptedEngine, Seen, Stand, serving

CHAT = "/v1/chat/completions"


def ask(model: str) -> str:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})


class Elsewhere(ScriptedEngine):
    """A server that lists models and says which server answered."""

    def __init__(self, name: str, *models: str) -> None:
        super().__init__()
        self.name = name
        self.models = models
        self.reply = self.answer

    async def answer(self, seen: Seen) -> None:
        if seen.path == "/health":
            await seen.json(b"{}")
        elif seen.path == "/v1/models":
            await seen.json(json.dumps({"data": [{"id": model} for model in self.models]}).encode())
        else:
            await seen.json(json.dumps({"by": self.name}).encode())

    @property
    def chats(self) -> int:
        return sum(seen.path == CHAT for seen in self.seen)


async def test_what_a_server_of_the_settings_serves_is_listed_and_routed_to_it(stand: Stand) -> None:
    async with serving(Elsewhere("one", "big-model")) as url:
        stand.settings.change(vllm_gen_urls=(url,))
        await stand.pools.look()
        answer = await stand.post(CHAT, ask("big-model"))
        assert (answer.status, answer.json()) == (200, {"by": "one"})
        listed = {m["id"]: m for m in (await stand.get("/v1/models")).json()["data"]}
        assert (listed["big-model"]["owned_by"], listed["big-model"]["engine"]) == ("upstream", "vllm")
        assert (await stand.get("/v1/models/big-model")).json()["id"] == "big-model"
        await stand.usage.flush()
        record = (await stand.log.find()).items[0].record
        assert (record.model_name, record.model_id, record.status) == ("big-model", None, 200)


async def test_a_name_that_nobody_serves_is_not_sent_to_whoever_is_there(stand: Stand) -> None:
    elsewhere = Elsewhere("one", "big-model")
    async with serving(elsewhere) as url:
        stand.settings.change(vllm_gen_urls=(url,))
        await stand.pools.look()
        assert (await stand.post(CHAT, ask("big-modle"))).status == 404
        assert elsewhere.chats == 0


async def test_our_own_model_comes_before_one_of_the_same_name_elsewhere(stand: Stand) -> None:
    elsewhere = Elsewhere("one", "demo")
    async with serving(elsewhere) as url:
        stand.settings.change(vllm_gen_urls=(url,))
        await stand.pools.look()
        assert (await stand.post(CHAT, ask("demo"))).status == 200
        assert elsewhere.chats == 0
        assert [m["id"] for m in (await stand.get("/v1/models")).json()["data"]] == ["demo"]


async def test_two_servers_of_one_model_share_and_stand_in_for_each_other(stand: Stand) -> None:
    one, two = Elsewhere("one", "big"), Elsewhere("two", "big")
    async with serving(two) as second:
        async with serving(one) as first:
            stand.settings.change(vllm_gen_urls=(first,), llamacpp_gen_urls=(second,))
            await stand.pools.look()
            assert {m.url: m.healthy for m in stand.pools.members} == {first: True, second: True}
        answers = [await stand.post(CHAT, ask("big")) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 6
        assert {answer.json()["by"] for answer in answers} == {"two"}
    retried = f'gateway_upstream_retries_total{{path="{CHAT}"}}'
    assert any(line.startswith(retried) for line in generate_latest(stand.registry).decode().splitlines())


async def test_a_server_that_keeps_failing_is_left_alone_and_tried_again_later(stand: Stand) -> None:
    async with serving(Elsewhere("one", "big")) as url:
        stand.settings.change(vllm_gen_urls=(url,), breaker_failures=2, breaker_cooldown_s=600.0)
        await stand.pools.look()
    statuses = [(await stand.post(CHAT, ask("big"))).status for _ in range(4)]
    refused = await stand.post(CHAT, ask("big"))
    assert statuses == [503] * 4
    assert refused.error["code"] == "no_upstream" and int(refused.headers["retry-after"]) > 500
    member = stand.pools.members[0]
    assert (member.breaker.state, member.breaker.failures) == ("open", 2)
    stand.settings.change(vllm_gen_urls=(url,), breaker_failures=2, breaker_cooldown_s=1e-9)
    assert member.breaker.state == "half_open"
    assert (await stand.post(CHAT, ask("big"))).error["code"] == "engine_gone"


async def test_an_answer_closes_the_breaker(stand: Stand) -> None:
    elsewhere = Elsewhere("one", "big")
    async with serving(elsewhere) as url:
        stand.settings.change(vllm_gen_urls=(url,), breaker_failures=1, breaker_cooldown_s=1e-9)
        await stand.pools.look()

        async def break_off(seen: Seen) -> None:
            seen.receive.__self__.transport.abort()

        elsewhere.reply = break_off
        assert (await stand.post(CHAT, ask("big"))).status == 503
        member = stand.pools.members[0]
        assert member.breaker.times_opened == 1
        elsewhere.reply = elsewhere.answer
        assert (await stand.post(CHAT, ask("big"))).status == 200
        assert (member.breaker.state, member.breaker.failures, member.in_flight) == ("closed", 0, 0)


async def test_an_entered_model_goes_to_its_address_with_the_key_for_upstreams(stand: Stand) -> None:
    elsewhere = Elsewhere("one")
    async with serving(elsewhere) as url:
        stand.entries.append(External("mine", url, "llamacpp", "generate", datetime.now(UTC)))
        stand.settings.change(upstream_api_key="their-key")
        await stand.pools.look()
        assert (await stand.post(CHAT, ask("mine"))).json() == {"by": "one"}
        assert elsewhere.seen[-1].header("authorization") == ["Bearer their-key"]
        stand.entries.clear()
        await stand.pools.look()
        assert (await stand.post(CHAT, ask("mine"))).status == 404


async def test_a_key_reaches_only_the_upstreams_models_on_its_list(stand: Stand) -> None:
    _, token = await stand.access.keys.create("k", Role.USER, LOCAL_ADMIN, models=("small*",))
    async with serving(Elsewhere("one", "small-1", "big")) as url:
        stand.settings.change(vllm_gen_urls=(url,))
        await stand.pools.look()
        bearer = f"Bearer {token}"
        assert (await stand.post(CHAT, ask("small-1"), authorization=bearer)).status == 200
        assert (await stand.post(CHAT, ask("big"), authorization=bearer)).status == 403
        listed = (await stand.get("/v1/models", authorization=bearer)).json()["data"]
        assert [model["id"] for model in listed] == ["small-1"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 7}', b'{"data": [{"id": 3}, null]}', b"\xff"])
async def test_a_server_that_lists_nonsense_serves_nothing(stand: Stand, body: bytes) -> None:
    elsewhere = Elsewhere("one")

    async def nonsense(seen: Seen) -> None:
        await seen.json(body)

    elsewhere.reply = nonsense
    async with serving(elsewhere) as url:
        stand.settings.change(vllm_gen_urls=(url,))
        await stand.pools.look()
        assert (stand.pools.all(), stand.pools.members[0].healthy) == ([], True)


async def test_requests_are_counted_by_engine(stand: Stand) -> None:
    async with serving(Elsewhere("one", "big")) as url:
        stand.settings.change(vllm_gen_urls=(url,))
        await stand.pools.look()
        await stand.post(CHAT, ask("big"))
        await stand.post(CHAT, ask("demo"))
        labels = {"path": CHAT, "engine_type": "vllm", "base_url": url}
        value = stand.registry.get_sample_value
        assert value("gateway_upstream_selected_by_engine_total", labels) == 1
        for engine in ("vllm", "llamacpp"):
            by_engine = {"path": CHAT, "engine_type": engine}
            assert value("gateway_upstream_latency_by_engine_seconds_count", by_engine) == 1
        assert value("gateway_upstream_health", {"base_url": url}) == 1
        assert value("gateway_upstream_health_degradation_total", {"base_url": url}) == 0
        assert value("gateway_ratelimit_allowed_total") == 2
    await stand.pools.look()
    assert value("gateway_upstream_health", {"base_url": url}) == 0
    assert value("gateway_upstream_health_degradation_total", {"base_url": url}) == 1
