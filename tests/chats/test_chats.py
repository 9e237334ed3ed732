"""Conversations are kept for the one who had them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ostler.chats.service import UNTITLED, ChatExists, ChatNotFound, Chats, Said, owner_of, title_from
from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.principals import LOCAL_ADMIN, Principal, Role


@pytest.fixture
def chats(database: Database) -> Chats:
    return Chats(database, Clock())


def test_a_title_is_the_beginning_of_what_was_said() -> None:
    assert title_from("  Hello ") == "Hello"
    assert title_from(" ") == UNTITLED
    assert title_from("x" * 40) == "x" * 40
    assert title_from("x" * 41) == "x" * 37 + "..."


def test_a_person_a_key_and_the_local_person_have_conversations_of_their_own() -> None:
    person = Principal("ada", Role.USER, user_id=7)
    her_key = Principal("ci", Role.USER, user_id=7, key_id=3)
    lone_key = Principal("ci", Role.USER, key_id=3)
    assert owner_of(person) == owner_of(her_key) == "user:7"
    assert {owner_of(lone_key), owner_of(LOCAL_ADMIN)} == {"key:3", "local"}


async def test_only_what_a_person_says_gives_the_title_and_only_once(chats: Chats) -> None:
    chat = await chats.create("user:1", "m", "vllm")
    for role, content in (("system", "Be kind."), ("user", "One?"), ("user", "Two?")):
        await chats.add("user:1", chat.id, Said(role, content))
    found = await chats.get("user:1", chat.id)
    assert found.title == "One?" and found.message_count == 3 and found.updated_at > found.created_at


async def test_a_conversation_of_another_system_keeps_its_id_and_its_times(chats: Chats) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    kept = {"chat_id": "abc", "created_at": datetime(2026, 1, 1, tzinfo=UTC), "title": "Old"}
    await chats.create("user:1", "m", "vllm", said=[Said("user", "Hi", {"a": 1}, at)], **kept)  # type: ignore[arg-type]
    found = await chats.get("user:1", "abc")
    assert (found.created_at, found.updated_at, found.messages[0].created_at) == (kept["created_at"], at, at)
    with pytest.raises(ChatExists):
        await chats.create("user:2", "m", "vllm", chat_id="abc")


async def test_clearing_takes_all_of_one_owner_and_nothing_else(chats: Chats) -> None:
    for owner in ("user:1", "user:1", "user:2"):
        chat = await chats.create(owner, "m", "vllm")
        await chats.add(owner, chat.id, Said("user", "x"))
    assert await chats.clear("user:1") == 2 and await chats.clear("user:1") == 0
    assert [c.message_count for c in await chats.list("user:2")] == [1]
    with pytest.raises(ChatNotFound):
        await chats.get("user:1", chat.id)
