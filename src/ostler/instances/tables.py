"""The tables of instances (one launch of one model each) and of footprints (what loads took)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base


class InstanceRow(Base):
    """One launch. Rows of ended launches stay, for history and learned numbers.

    `failure` is {reason, hint, diagnosis, exit_code, oom_killed, log_tail}. `cause` says why it was
    started ("person", "demand", "auto"), `actor` by whom. `restarts`: faults in a row before this launch.
    """

    __tablename__ = "instances"
    __table_args__ = (Index("ix_instances_model_state", "model_id", "state"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    node: Mapped[str] = mapped_column(Text)
    runtime: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    cause: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    failure: Mapped[dict[str, Any] | None]
    spec: Mapped[dict[str, Any]]
    spec_digest: Mapped[str] = mapped_column(Text)
    handle: Mapped[dict[str, Any] | None]
    restarts: Mapped[int]
    created_at: Mapped[datetime]
    ready_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    load_seconds: Mapped[float | None]


class FootprintRow(Base):
    """What loads of the same files with the same options by the same engine took on this node.

    `key` is made by `footprint_key`. `measured` are bytes by device id, `load_seconds` is
    {"last": [...]} with the newest first. `files_bytes` is the size of the files that were loaded.
    """

    __tablename__ = "footprints"

    node: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    engine: Mapped[str] = mapped_column(Text)
    measured: Mapped[dict[str, Any]]
    load_seconds: Mapped[dict[str, Any]]
    files_bytes: Mapped[int] = mapped_column(BigInteger)
    has_served: Mapped[bool]
    seen_at: Mapped[datetime] = mapped_column(index=True)
