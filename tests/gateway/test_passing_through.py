from __future__ import annotations

import json

import pytest

from tests.gateway.conftest import INTERNAL_KEY, Seen, Stand

CHAT = "/v1/chat/completions"
RICH = b"""{ "model" :"demo",
  "messages":[{"role":"user","content":[{"type":"text","text":"h\xc3\xa9 \\ud83d\\ude00"},
     {"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}],
  "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"x":{"type":"number","minimum":1e-7}}}}}],
  "response_format":{"type":"json_schema","json_schema":{"name":"s","strict":true,"schema":{"type":"object"}}},
  "logprobs":true,"top_logprobs":3, "seed": 12345678901234567890, "a_field_of_tomorrow": {"b": [1.0, 2.50]} }
"""


async def test_the_bytes_of_a_request_reach_the_engine_untouched(stand: Stand) -> None:
    answer = await stand.post(CHAT, RICH, content_type="application/json")
    assert answer.status == 200
    [seen] = stand.engine.seen
    assert seen.body == RICH
    assert (seen.method, seen.path) == ("POST", CHAT)
    assert seen.header("content-type") == ["application/json"]


async def test_the_bytes_of_an_answer_reach_the_client_untouched(stand: Stand) -> None:
    strange = b'{"choices" :\n[ ],"x":1.10, "text":"\xff\xfe not utf-8"}'

    async def reply(seen: Seen) -> None:
        await seen.json(strange, status=201)

    stand.engine.reply = reply
    answer = await stand.post(CHAT, '{"model":"demo"}')
    assert (answer.status, answer.body) == (201, strange)


async def test_a_large_answer_in_pieces_arrives_whole(stand: Stand) -> None:
    pieces = [bytes([65 + n]) * 70_000 for n in range(8)]

    async def reply(seen: Seen) -> None:
        await seen.start(content_type="audio/wav")
        for piece in pieces:
            await seen.chunk(piece)
        await seen.end()

    stand.engine.reply = reply
    answer = await stand.post("/v1/audio/speech", '{"model":"demo"}')
    assert answer.body == b"".join(pieces)
    assert answer.headers["content-type"] == "audio/wav"


async def test_an_engine_gets_its_own_key_and_never_the_clients(stand: Stand) -> None:
    await stand.post(
        CHAT,
        '{"model":"demo"}',
        authorization="Bearer sk-of-the-client",
        x_api_key="sk-of-the-client",
        api_key="sk-of-the-client",
        cookie="session=sk-of-the-client",
        x_goog_api_key="sk-of-the-client",
        x_auth_token="sk-of-the-client",
        proxy_authorization="Basic sk-of-the-client",
    )
    [seen] = stand.engine.seen
    assert seen.header("authorization") == [f"Bearer {INTERNAL_KEY}"]
    assert "sk-of-the-client" not in repr(seen.headers)


async def test_headers_of_one_connection_do_not_cross(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.start(
            content_length="2",
            connection="keep-alive, X-Inner",
            x_inner="1",
            set_cookie="a=b",
            keep_alive="timeout=5",
            location=stand.engine.url,
            access_control_allow_origin="*",
            date="Mon, 01 Jan 2001 00:00:00 GMT",
            x_engine_fact="stays",
        )
        await seen.end(b"{}")

    stand.engine.reply = reply
    answer = await stand.post(
        CHAT, '{"model":"demo"}', connection="keep-alive, X-Hop", x_hop="1", te="trailers", x_mine="stays"
    )
    [seen] = stand.engine.seen
    assert seen.header("x-mine") == ["stays"]
    assert not seen.header("x-hop") and not seen.header("te")
    assert answer.headers["x-engine-fact"] == "stays"
    for gone in ("x-inner", "set-cookie", "keep-alive", "location", "access-control-allow-origin"):
        assert gone not in answer.headers
    assert "2001" not in answer.headers.get("date", "")


async def test_a_request_id_is_kept_or_made_and_shared_with_the_engine(stand: Stand) -> None:
    given = await stand.post(CHAT, '{"model":"demo"}', x_request_id="mine-1")
    made = await stand.post(CHAT, '{"model":"demo"}', x_request_id="not good\tenough")
    assert given.headers["x-request-id"] == "mine-1"
    assert made.headers["x-request-id"] not in ("", "not good\tenough")
    assert [record.request_id for record in await stand.records()] == [
        "mine-1",
        made.headers["x-request-id"],
    ]
    assert [seen.header("x-request-id")[0] for seen in stand.engine.seen] == [
        "mine-1",
        made.headers["x-request-id"],
    ]


async def test_an_alias_goes_to_its_model_with_the_name_the_client_used(stand: Stand) -> None:
    stand.add("org/big:Q4_K_M", aliases=("big",))
    await stand.post(CHAT, '{"model":"big"}')
    await stand.post(CHAT, '{"model":"org/big:Q4_K_M"}')
    assert [seen.body for seen in stand.engine.seen] == [b'{"model":"big"}', b'{"model":"org/big:Q4_K_M"}']


async def test_an_upload_is_routed_by_its_form_field_and_arrives_untouched(stand: Stand) -> None:
    sound = bytes(range(256)) * 500 + b"\r\n--other\r\n"
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n' + sound + b"\r\n"
        b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n--xyz--\r\n'
    )
    answer = await stand.post(
        "/v1/audio/transcriptions", body, content_type='multipart/form-data; boundary="xyz"'
    )
    assert answer.status == 200
    assert stand.engine.seen[0].body == body


async def test_paths_that_only_the_engine_knows_go_there_with_their_query(stand: Stand) -> None:
    await stand.post("/v1/tomorrow/thing?x=1&y=%2F", '{"model":"demo"}')
    got = await stand.get("/v1/responses/resp_1?model=demo")
    named = await stand.ask("DELETE", "/v1/responses/resp_1", x_ostler_model="demo")
    assert (got.status, named.status) == (200, 200)
    asked = [(seen.method, seen.path, seen.query) for seen in stand.engine.seen]
    assert asked == [
        ("POST", "/v1/tomorrow/thing", b"x=1&y=%2F"),
        ("GET", "/v1/responses/resp_1", b"model=demo"),
        ("DELETE", "/v1/responses/resp_1", b""),
    ]


async def test_everything_outside_v1_belongs_to_the_inner_application(stand: Stand) -> None:
    for path in ("/", "/health", "/ostler/v1/models", "/v10/x"):
        assert (await stand.get(path)).body == f"inner:{path}".encode()


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ('{"model":"kept","temperature":0.9, "x":1}', {"temperature": 0.9, "top_k": 40, "x": 1}),
        ('{"model":"kept","temperature":null}', {"temperature": 0.1, "top_k": 40}),
        (' {"model":"kept"}', {"temperature": 0.1, "top_k": 40}),
        ('{"model":"kept","temperature":0,"top_k":false}', {"temperature": 0, "top_k": False}),
    ],
)
async def test_request_defaults_fill_what_the_request_leaves_out(
    stand: Stand, sent: str, arrives: dict[str, object]
) -> None:
    stand.add("kept", request_defaults={"temperature": 0.1, "top_k": 40, "nothing": None})
    assert (await stand.post(CHAT, sent)).status == 200
    assert json.loads(stand.engine.seen[0].body) == {"model": "kept", **arrives}


async def test_a_request_with_all_defaults_given_passes_byte_for_byte(stand: Stand) -> None:
    stand.add("kept", request_defaults={"temperature": 0.1})
    body = b'{ "temperature" : 1.00,"model": "kept" }'
    await stand.post(CHAT, body)
    assert stand.engine.seen[0].body == body


async def test_a_filled_in_default_leaves_the_other_bytes_as_they_were(stand: Stand) -> None:
    stand.add("kept", request_defaults={"temperature": 0.1})
    await stand.post(CHAT, b' { "model": "kept", "seed": 12345678901234567890, "p": 1.50 }')
    assert stand.engine.seen[0].body.endswith(b' "model": "kept", "seed": 12345678901234567890, "p": 1.50 }')


async def test_one_connection_to_the_engine_serves_request_after_request(stand: Stand) -> None:
    for _ in range(5):
        await stand.post(CHAT, '{"model":"demo"}')
    ports = {id(seen.receive.__self__.transport) for seen in stand.engine.seen}
    assert len(stand.engine.seen) == 5 and len(ports) == 1
