"""A model's own limits of time, and its system prompt."""

from __future__ import annotations

import asyncio
import json

from ostler.gateway.bodies import with_defaults
from ostler.models.records import Policy
from tests.gateway.conftest import ScriptedEngine, Seen, Stand

CHAT = "/v1/chat/completions"
ASK = '{"model":"demo","messages":[{"role":"user","content":"Hi"}]}'


class Silent:
    """An engine that begins its answer and says no more, until its client has gone."""

    def __init__(self, engine: ScriptedEngine, *, content_type: str) -> None:
        self.gone = asyncio.Event()
        self._content_type = content_type
        engine.reply = self.reply

    async def reply(self, seen: Seen) -> None:
        await seen.start(content_type=self._content_type)
        await seen.chunk(b'data: {"choices":[]}\n\n')
        await seen.until_gone()
        self.gone.set()


async def test_an_answer_that_takes_longer_than_the_policy_allows_is_ended(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.until_gone()
        gone.set()

    gone = asyncio.Event()
    stand.engine.reply = reply
    stand.add("demo", policy=Policy(request_timeout_s=0.2))
    answer = await stand.post(CHAT, ASK)
    assert answer.status == 504 and "not whole within 0.2 s" in answer.error["message"]
    async with asyncio.timeout(5):
        await gone.wait()  # the engine is not left generating
    assert stand.instances.try_lease(1) is not None


async def test_a_stream_may_take_longer_than_an_answer_but_not_be_silent(stand: Stand) -> None:
    silent = Silent(stand.engine, content_type="text/event-stream")
    stand.add("demo", policy=Policy(request_timeout_s=0.1, stream_timeout_s=0.5))
    answer = await stand.post(CHAT, ASK[:-1] + ',"stream":true}')
    assert b"said nothing for 0.5 s" in answer.body
    async with asyncio.timeout(5):
        await silent.gone.wait()


async def test_a_slow_answer_has_at_least_the_time_that_its_policy_gives(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await asyncio.sleep(0.3)
        await seen.json(b'{"choices":[]}')

    stand.engine.reply = reply
    stand.settings.change(upstream_timeout_s=0.1)
    stand.add("demo", policy=Policy(request_timeout_s=30))
    assert (await stand.post(CHAT, ASK)).status == 200


def test_a_system_prompt_is_the_first_message_where_there_is_none() -> None:
    defaults = {"system_prompt": "Be brief.", "top_k": 1}
    told = with_defaults(b'{"messages":[]}', {"messages": []}, defaults)
    assert told == b'{"top_k": 1,"messages":[]}'.replace(b": ", b":")
    messages = [{"role": "user", "content": "Hi"}]
    told = with_defaults(b"{...}", {"messages": messages}, defaults)
    assert b'[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]' in told
    assert b"system_prompt" not in told
    for role in ("system", "developer"):
        own = {"messages": [{"role": role, "content": "x"}]}
        assert with_defaults(b"{as it came}", own, {"system_prompt": "Be brief."}) == b"{as it came}"
    assert with_defaults(b'{"prompt":"a"}', {"prompt": "a"}, {"system_prompt": "x"}) == b'{"prompt":"a"}'


def test_a_request_that_says_how_long_in_any_word_gets_no_default_length() -> None:
    defaults = {"max_tokens": 8, "temperature": 0.5}
    for word in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"):
        own = {word: 3, "temperature": 1}
        assert with_defaults(b"{as it came}", own, defaults) == b"{as it came}", word
        told = json.loads(with_defaults(b'{"x":1}', {"x": 1, word: None}, defaults))
        assert (told["max_tokens"], told["temperature"]) == (8, 0.5)
