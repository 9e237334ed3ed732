"""The floor's own tables: events and settings changed at run time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base, JsonDocument


class EventRow(Base):
    """One thing that happened."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_subject", "subject_type", "subject_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(Text, index=True)
    subject_type: Mapped[str] = mapped_column(Text)
    subject_id: Mapped[str] = mapped_column(Text)
    subject_name: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    cause: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]


class SettingRow(Base):
    """A setting that was changed while the server ran."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[Any] = mapped_column(JsonDocument)
    changed_at: Mapped[datetime]
    changed_by: Mapped[str] = mapped_column(Text)
