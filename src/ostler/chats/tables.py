"""The tables of conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base


class ChatRow(Base):
    """One conversation. `owner` says whose: `user:7`, `key:3` or `local`."""

    __tablename__ = "chats"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    owner: Mapped[str] = mapped_column(Text, index=True)
    title: Mapped[str] = mapped_column(Text)
    model_name: Mapped[str] = mapped_column(Text)
    engine: Mapped[str] = mapped_column(Text)
    constraints: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ChatMessageRow(Base):
    """One thing that was said."""

    __tablename__ = "chat_messages"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[str] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text)
    metrics: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
