"""The table of accounted requests."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base


class RequestRow(Base):
    """One request that went through the gateway."""

    __tablename__ = "requests"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    model_id: Mapped[int | None] = mapped_column(index=True)
    model_name: Mapped[str] = mapped_column(Text)
    instance_id: Mapped[int | None]
    key_id: Mapped[int | None] = mapped_column(index=True)
    user_id: Mapped[int | None]
    org_id: Mapped[int | None]
    principal: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)
    status: Mapped[int]
    streamed: Mapped[bool]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    first_token_s: Mapped[float | None]
    duration_s: Mapped[float]
    error: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
