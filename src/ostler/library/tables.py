"""The library's tables: roots, and what was read from files' headers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base


class RootRow(Base):
    """A folder that holds model files. `filled_by_ostler`: files in it may be deleted by name."""

    __tablename__ = "library_roots"
    __table_args__ = (UniqueConstraint("path", "node"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(Text)
    layout: Mapped[str] = mapped_column(Text)
    filled_by_ostler: Mapped[bool]
    node: Mapped[str] = mapped_column(Text)
    added_at: Mapped[datetime]
    added_by: Mapped[str] = mapped_column(Text)


class InspectionRow(Base):
    """What a header said, valid as long as size, mtime and inode are the same."""

    __tablename__ = "library_inspections"

    path: Mapped[str] = mapped_column(Text, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    inode: Mapped[int] = mapped_column(BigInteger)
    facts: Mapped[dict[str, Any]]
