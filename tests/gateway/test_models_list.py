from __future__ import annotations

from tests.gateway.conftest import Stand


async def test_the_list_has_openais_shape_and_the_state_beside_it(stand: Stand) -> None:
    stand.add("cold", running=False, aliases=("chilly",), task="chat")
    answer = await stand.get("/v1/models")
    listed = answer.json()
    assert listed["object"] == "list"
    cold, demo = listed["data"]
    assert cold["id"] == "cold" and cold["state"] == "stopped"
    assert (cold["aliases"], cold["task"], cold["engine"]) == (["chilly"], "chat", "llamacpp")
    assert (demo["object"], demo["owned_by"], demo["state"]) == ("model", "ostler", "running")
    assert isinstance(demo["created"], int)


async def test_the_list_says_how_many_tokens_a_request_may_have_where_the_model_runs(stand: Stand) -> None:
    stand.add("cold", running=False)
    stand.instances.endpoints[1].context_length = 4096
    cold, demo = (await stand.get("/v1/models")).json()["data"]
    assert (demo["context_length"], demo["max_model_len"]) == (4096, 4096)
    assert (cold["context_length"], cold["max_model_len"]) == (None, None)


async def test_the_list_never_says_where_an_engine_or_a_file_is(stand: Stand) -> None:
    text = (await stand.get("/v1/models")).body.decode()
    assert stand.engine.url.split("//")[1] not in text and "/secret/place" not in text


async def test_one_model_is_found_by_any_name_raw_and_encoded(stand: Stand) -> None:
    stand.add("org/repo:Q4_K_M", aliases=("short",))
    for path in ("org/repo:Q4_K_M", "org%2Frepo%3AQ4_K_M", "short"):
        answer = await stand.get(f"/v1/models/{path}")
        assert (answer.status, answer.json()["id"]) == (200, "org/repo:Q4_K_M")
    missing = await stand.get("/v1/models/shirt")
    assert missing.status == 404 and "short" in missing.error["message"]


async def test_a_head_request_has_the_headers_and_no_body(stand: Stand) -> None:
    full = await stand.get("/v1/models")
    head = await stand.ask("HEAD", "/v1/models")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]
