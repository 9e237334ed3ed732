"""The playground: which models run, what they take, and people's conversations."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ostler.core.principals import LOCAL_ADMIN, Role
from tests.api.conftest import Api
from tests.api.dialects.cortex.shapes import envelope
from tests.api.dialects.cortex.test_auth import SAME_ORIGIN, cookie_of

CHATS = "//v1/chat/sessions"


async def test_a_model_is_down_until_it_runs_and_then_says_what_it_takes(api: Api, model_file: Path) -> None:
    await api.model(
        model_file, "org/tiny:Q8", options={"context_length": 256}, request_defaults={"temperature": 0}
    )
    down = {"name": "org/tiny:Q8", "served_model_name": "org/tiny:Q8", "task": "generate", "state": "down"}
    assert (await api.get("//v1/models/status")).json() == {"data": [down]}
    assert (await api.get("//v1/models/running")).json() == []
    path = "//v1/models/org/tiny:Q8/constraints"
    envelope(await api.get(path), 404, "not_found")
    assert (await api.post("/models/org%2Ftiny:Q8/start", {})).status_code == 200
    assert (await api.get("//v1/models/status")).json() == {"data": [{**down, "state": "running"}]}
    (running,) = (await api.get("//v1/models/running")).json()
    assert running == {
        "served_model_name": "org/tiny:Q8",
        "task": "generate",
        "engine_type": "llamacpp",
        "state": "running",
    }
    told = (await api.get(path)).json()
    assert (told["context_size"], told["max_model_len"], told["max_tokens_default"]) == (256, None, 128)
    assert told["request_defaults"] == {"temperature": 0} and told["supports_streaming"] is True


async def test_the_context_is_what_one_request_may_have(api: Api, model_file: Path) -> None:
    options = {"context_length": 1024, "parallel_slots": 4}
    model = await api.model(model_file, "shared", options=options)
    await api.post("/models/shared/start")
    async with asyncio.timeout(30):
        while api.services.instances.view(model.id).context_length is None:
            await asyncio.sleep(0.05)
    told = (await api.get("//v1/models/shared/constraints")).json()
    assert (told["context_size"], told["max_tokens_default"]) == (256, 128)


async def test_models_that_run_are_told_to_those_who_may_use_them(guarded: Api) -> None:
    for path in ("//v1/models/running", "//v1/models/status"):
        envelope(await guarded.get(path), 401, "unauthenticated")
    user = await guarded.as_role(Role.USER)
    answer = await guarded("GET", "//v1/models/status", headers=user)
    assert answer.json() == {"data": []} and "url" not in answer.text
    await guarded.services.externals.add("elsewhere", "http://127.0.0.1:9", "vllm", "generate", LOCAL_ADMIN)
    await guarded.services.pools.look()
    (down,) = (await guarded("GET", "//v1/models/status", headers=user)).json()["data"]
    assert down["state"] == "down" and "127.0.0.1" not in str(down)
    bounded = await guarded.as_role(Role.USER, models=["other"])
    assert (await guarded("GET", "//v1/models/status", headers=bounded)).json() == {"data": []}


async def test_a_conversation_is_begun_added_to_read_and_deleted(api: Api) -> None:
    begun = (await api.post(CHATS, {"model_name": "tiny", "engine_type": "llamacpp"})).json()
    assert begun["title"] == "New Chat" and begun["messages"] == [] and begun["constraints"] is None
    path = f"{CHATS}/{begun['id']}"
    await api.post(f"{path}/messages", {"role": "system", "content": "Be kind."})
    said = "What is the capital of France, and why is it that city?"
    message = (await api.post(f"{path}/messages", {"role": "user", "content": said})).json()
    answer = {"role": "assistant", "content": "Paris.", "metrics": {"tok_per_s": 12.5}}
    await api.post(f"{path}/messages", answer)
    shown = (await api.get(path)).json()
    assert shown["title"] == "What is the capital of France, and wh..." and len(shown["title"]) == 40
    assert [m["role"] for m in shown["messages"]] == ["system", "user", "assistant"]
    assert shown["messages"][1] == message and shown["messages"][2]["metrics"] == {"tok_per_s": 12.5}
    second = (await api.post(CHATS, {"model_name": "tiny"})).json()
    listed = (await api.get(CHATS)).json()
    assert {chat["id"]: chat["message_count"] for chat in listed} == {begun["id"]: 3, second["id"]: 0}
    times = [chat["created_at"] for chat in listed]
    assert times == sorted(times, reverse=True) and "messages" not in listed[0]
    assert (await api("DELETE", path)).json() == {"status": "deleted"}
    envelope(await api.get(path), 404, "Session not found")
    assert (await api("DELETE", CHATS)).json() == {"status": "cleared", "deleted_count": 1}
    assert (await api.get(CHATS)).json() == []


async def test_conversations_are_each_persons_own_and_go_with_them(guarded: Api) -> None:
    ada = await cookie_of(guarded, "ada", Role.USER)
    eve = await cookie_of(guarded, "eve", Role.ADMIN)
    envelope(await guarded.get(CHATS), 401, "unauthenticated")
    begun = (await guarded("POST", CHATS, {"model_name": "m"}, headers={**ada, **SAME_ORIGIN})).json()
    path = f"{CHATS}/{begun['id']}"
    said = {"role": "user", "content": "x"}
    envelope(await guarded("GET", path, headers=eve), 404, "Session not found")
    envelope(await guarded("DELETE", path, headers={**eve, **SAME_ORIGIN}), 404)
    envelope(await guarded("POST", f"{path}/messages", said, headers={**eve, **SAME_ORIGIN}), 404)
    assert (await guarded("GET", CHATS, headers=eve)).json() == []
    gone = await guarded("DELETE", "//admin/users/1", headers={**eve, **SAME_ORIGIN})
    assert gone.json() == {"status": "ok"}
    assert await guarded.services.chats.list("user:1") == []
