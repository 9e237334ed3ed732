"""The playground's conversations, each person's own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field

from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.door import needs
from ostler.api.services import Rooms, Who
from ostler.chats.service import Chat, Message, Said, owner_of
from ostler.core.principals import Role

routes = router("chats")

ChatId = Annotated[str, Path(max_length=64)]


class ChatIn(CortexBody):
    """A new conversation with a model."""

    model_name: str = Field(max_length=255)
    engine_type: str = Field("vllm", max_length=32)
    constraints: dict[str, Any] | None = None


class MessageIn(CortexBody):
    """What was said, and by whom (user, assistant, system)."""

    role: str = Field(max_length=16)
    content: str
    metrics: dict[str, Any] | None = None


@routes.get("/v1/chat/sessions", **needs(Role.USER))
async def list_chats(rooms: Rooms, who: Who) -> list[dict[str, Any]]:
    """Your conversations, newest first."""
    return [
        {**_summary(chat), "message_count": chat.message_count}
        for chat in await rooms.chats.list(owner_of(who))
    ]


@routes.post("/v1/chat/sessions", **needs(Role.USER))
async def begin_chat(rooms: Rooms, who: Who, body: ChatIn) -> dict[str, Any]:
    """Begin a conversation. The engine is that of the model, where it is known here."""
    model = rooms.models.find(body.model_name)
    engine = model.engine if model else body.engine_type
    chat = await rooms.chats.create(owner_of(who), body.model_name, engine, constraints=body.constraints)
    return _detail(chat)


@routes.delete("/v1/chat/sessions", **needs(Role.USER))
async def clear_chats(rooms: Rooms, who: Who) -> dict[str, Any]:
    """Delete all of your conversations."""
    return {"status": "cleared", "deleted_count": await rooms.chats.clear(owner_of(who))}


@routes.get("/v1/chat/sessions/{session_id}", **needs(Role.USER))
async def show_chat(rooms: Rooms, who: Who, session_id: ChatId) -> dict[str, Any]:
    """One of your conversations, with all that was said."""
    return _detail(await rooms.chats.get(owner_of(who), session_id))


@routes.post("/v1/chat/sessions/{session_id}/messages", **needs(Role.USER))
async def add_message(rooms: Rooms, who: Who, session_id: ChatId, body: MessageIn) -> dict[str, Any]:
    """Add what was said; your first message gives the title."""
    said = Said(body.role, body.content, body.metrics)
    return _message(await rooms.chats.add(owner_of(who), session_id, said))


@routes.delete("/v1/chat/sessions/{session_id}", **needs(Role.USER))
async def delete_chat(rooms: Rooms, who: Who, session_id: ChatId) -> dict[str, str]:
    """Delete one of your conversations."""
    await rooms.chats.delete(owner_of(who), session_id)
    return {"status": "deleted"}


def _summary(chat: Chat) -> dict[str, Any]:
    return {
        "id": chat.id,
        "title": chat.title,
        "model_name": chat.model_name,
        "engine_type": chat.engine,
        "created_at": _milliseconds(chat.created_at),
        "updated_at": _milliseconds(chat.updated_at),
    }


def _detail(chat: Chat) -> dict[str, Any]:
    messages = [_message(message) for message in chat.messages]
    return {**_summary(chat), "constraints": chat.constraints, "messages": messages}


def _message(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        "metrics": message.metrics,
        "timestamp": _milliseconds(message.created_at),
    }


def _milliseconds(at: datetime) -> int:
    """Since 1970."""
    return int(at.timestamp() * 1000)
