"""The use cases of conversations: begin, list, read, add to, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.chats.tables import ChatMessageRow, ChatRow
from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import Conflict, NotFound
from ostler.core.principals import Principal

UNTITLED = "New Chat"
TITLE_LENGTH = 40
MOST_CHATS = 10_000
MOST_MESSAGES = 10_000
"""Bounds for one person's conversations, and for one conversation."""


class ChatNotFound(NotFound):
    """There is no such conversation, or it is somebody else's."""


class ChatExists(Conflict):
    """There is a conversation with this id already."""


class TooManyChats(Conflict):
    """No more fit in."""

    hint = "Delete some first."


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that was said; `role` is user, assistant, system or tool. `metrics` are the client's."""

    id: int
    role: str
    content: str
    metrics: Mapping[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation. `messages` are in their order, left empty in lists; `constraints` are the client's."""

    id: str
    title: str
    model_name: str
    engine: str
    constraints: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    message_count: int
    messages: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """What is added to a conversation. `at` None: now."""

    role: str
    content: str
    metrics: Mapping[str, Any] | None = None
    at: datetime | None = None


def owner_of(principal: Principal) -> str:
    """Under which name the conversations of this principal are kept."""
    if principal.user_id is not None:
        return owner_named(principal.user_id)
    return "local" if principal.key_id is None else f"key:{principal.key_id}"


def owner_named(user_id: int) -> str:
    """Under which name the conversations of a person are kept."""
    return f"user:{user_id}"


class Chats:
    """Every conversation, by owner (`owner_of`)."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def list(self, owner: str) -> list[Chat]:
        """All of an owner's conversations, newest first, without what was said in them."""
        async with self._database.read() as session:
            query = select(ChatRow).where(ChatRow.owner == owner)
            rows = (await session.scalars(query.order_by(ChatRow.created_at.desc(), ChatRow.id))).all()
            counted = await session.execute(
                select(ChatMessageRow.chat_id, func.count())
                .join(ChatRow, ChatRow.id == ChatMessageRow.chat_id)
                .where(ChatRow.owner == owner)
                .group_by(ChatMessageRow.chat_id)
            )
            counts = {row[0]: row[1] for row in counted}
        return [_chat(row, counts.get(row.id, 0)) for row in rows]

    async def create(
        self,
        owner: str,
        model_name: str,
        engine: str,
        *,
        constraints: Mapping[str, Any] | None = None,
        title: str = UNTITLED,
        said: Sequence[Said] = (),
        chat_id: str | None = None,
        created_at: datetime | None = None,
    ) -> Chat:
        """Begin a conversation, or keep one that was had elsewhere. Raises TooManyChats, ChatExists."""
        now = created_at or self._clock.now()
        row = ChatRow(
            id=chat_id or str(uuid4()),
            owner=owner,
            title=title,
            model_name=model_name,
            engine=engine,
            constraints=None if constraints is None else dict(constraints),
            created_at=now,
            updated_at=max([now, *(entry.at for entry in said if entry.at)]),
        )
        async with self._database.write() as session:
            there = await session.scalar(select(func.count()).where(ChatRow.owner == owner)) or 0
            if there >= MOST_CHATS:
                raise TooManyChats(f"there are already {there:,} conversations", limit=MOST_CHATS)
            if await session.get(ChatRow, row.id) is not None:
                raise ChatExists("there is a conversation with this id already", chat=row.id)
            session.add(row)
            await session.flush()
            messages = [self._message_row(row.id, entry) for entry in said]
            session.add_all(messages)
            await session.flush()
        return _chat(row, len(messages), messages)

    async def get(self, owner: str, chat_id: str) -> Chat:
        """A conversation with all that was said. Raises ChatNotFound."""
        async with self._database.read() as session:
            row = await _row(session, owner, chat_id)
            query = select(ChatMessageRow).where(ChatMessageRow.chat_id == row.id)
            messages = (await session.scalars(query.order_by(ChatMessageRow.id))).all()
        return _chat(row, len(messages), messages)

    async def add(self, owner: str, chat_id: str, said: Said) -> Message:
        """Add what was said; the first thing that a person says gives the title.

        Raises ChatNotFound, TooManyChats.
        """
        async with self._database.write() as session:
            row = await _row(session, owner, chat_id, to_change=True)
            there = await session.scalar(select(func.count()).where(ChatMessageRow.chat_id == row.id)) or 0
            if there >= MOST_MESSAGES:
                raise TooManyChats(f"this conversation has already {there:,} messages", limit=MOST_MESSAGES)
            message = self._message_row(row.id, said)
            session.add(message)
            if said.role == "user" and row.title == UNTITLED:
                row.title = title_from(said.content)
            row.updated_at = message.created_at
            await session.flush()
        return _message(message)

    async def delete(self, owner: str, chat_id: str) -> None:
        """Delete a conversation. Raises ChatNotFound."""
        async with self._database.write() as session:
            await session.delete(await _row(session, owner, chat_id, to_change=True))

    async def clear(self, owner: str) -> int:
        """Delete all of an owner's conversations; how many there were."""
        async with self._database.write() as session:
            gone = await session.scalars(delete(ChatRow).where(ChatRow.owner == owner).returning(ChatRow.id))
            return len(gone.all())

    def _message_row(self, chat_id: str, said: Said) -> ChatMessageRow:
        return ChatMessageRow(
            chat_id=chat_id,
            role=said.role,
            content=said.content,
            metrics=None if said.metrics is None else dict(said.metrics),
            created_at=said.at or self._clock.now(),
        )


def title_from(content: str) -> str:
    """The title that a first message gives: its beginning, at most 40 characters."""
    text = content.strip() or UNTITLED
    return text if len(text) <= TITLE_LENGTH else f"{text[: TITLE_LENGTH - 3]}..."


async def _row(session: AsyncSession, owner: str, chat_id: str, *, to_change: bool = False) -> ChatRow:
    query = select(ChatRow).where(ChatRow.id == chat_id, ChatRow.owner == owner)
    row = await session.scalar(query.with_for_update() if to_change else query)
    if row is None:
        raise ChatNotFound("there is no such conversation", chat=chat_id[:100])
    return row


def _chat(row: ChatRow, count: int, messages: Sequence[ChatMessageRow] = ()) -> Chat:
    return Chat(
        id=row.id,
        title=row.title,
        model_name=row.model_name,
        engine=row.engine,
        constraints=row.constraints,
        created_at=row.created_at,
        updated_at=row.updated_at,
        message_count=count,
        messages=tuple(_message(message) for message in messages),
    )


def _message(row: ChatMessageRow) -> Message:
    return Message(row.id, row.role, row.content, row.metrics, row.created_at)
