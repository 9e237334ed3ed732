"""Answers name the model that was asked for, whatever the engine calls it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ostler.gateway.renaming import Renaming
from tests.gateway.conftest import Seen, Stand

CHAT = '{"model": "asked", "messages": []}'
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,12}", fullmatch=True)


def served_as(stand: Stand, name: str) -> None:
    """The engine of `asked` calls its model so."""
    model = stand.add("asked", aliases=("other",))
    stand.instances.endpoints[model.id].served_name = name


async def test_a_whole_answer_names_what_was_asked_for_and_its_length_is_right(stand: Stand) -> None:
    served_as(stand, "the-engines-own")

    async def reply(seen: Seen) -> None:
        await seen.json(
            b'{"model":"the-engines-own","choices":[{"text":"\\"model\\":\\"the-engines-own\\""}]}'
        )

    stand.engine.reply = reply
    for asked in ("asked", "other"):
        answer = await stand.post("/v1/chat/completions", CHAT.replace("asked", asked))
        told = answer.json()
        assert told["model"] == asked
        assert told["choices"][0]["text"] == '"model":"the-engines-own"', "what the model said stays"
        assert answer.headers["content-length"] == str(len(answer.body))


async def test_a_stream_is_renamed_as_it_comes_wherever_it_is_cut(stand: Stand) -> None:
    served_as(stand, "host")
    event = b'data: {"id":"1","model":"host","choices":[]}\n\n'

    async def reply(seen: Seen) -> None:
        await seen.start(content_type="text/event-stream")
        for at in range(len(event) + 1):
            await seen.chunk(event[:at])
            await seen.chunk(event[at:])
        await seen.end(b"data: [DONE]\n\n")

    stand.engine.reply = reply
    body = (await stand.post("/v1/chat/completions", CHAT)).body
    whole = event.replace(b'"host"', b'"asked"')
    assert body == whole * (len(event) + 1) + b"data: [DONE]\n\n"


async def test_a_model_that_is_called_by_its_own_name_gets_the_engines_bytes_as_they_are(
    stand: Stand,
) -> None:
    served_as(stand, "asked")
    body = b'{"model":"asked", "model":"host"}'

    async def reply(seen: Seen) -> None:
        await seen.json(body)

    stand.engine.reply = reply
    assert (await stand.post("/v1/chat/completions", CHAT)).body == body


@given(NAMES, NAMES, st.lists(st.text(max_size=20), max_size=5), st.lists(st.integers(1, 30), max_size=40))
def test_in_whatever_pieces_an_answer_comes_it_is_the_renamed_whole(
    served: str, asked: str, texts: list[str], cuts: list[int]
) -> None:
    answer = b"".join(
        json.dumps({"model": served, "text": text}, separators=(",", ":")).encode() for text in texts
    )
    renaming, at, got = Renaming(served, asked), 0, b""
    for cut in cuts:
        got += renaming.feed(answer[at : at + cut])
        at += cut
    got += renaming.feed(answer[at:]) + renaming.rest()
    assert got == b"".join(
        json.dumps({"model": asked, "text": text}, separators=(",", ":")).encode() for text in texts
    )
