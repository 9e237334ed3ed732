"""The tables of keys and people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base


class OrganisationRow(Base):
    """An organisation."""

    __tablename__ = "organisations"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    created_at: Mapped[datetime]


class KeyRow(Base):
    """An API key: only its SHA-256 is kept. `user_id` and `org_id` say whose it is.

    One that came from another system has its bcrypt hash in `foreign_hash` until its first use.
    """

    __tablename__ = "keys"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    prefix: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(Text, unique=True)
    foreign_hash: Mapped[str | None] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    models: Mapped[list[str] | None]
    limits: Mapped[dict[str, Any]]
    user_id: Mapped[int | None]
    org_id: Mapped[int | None]
    scopes: Mapped[list[str] | None]
    addresses: Mapped[list[str] | None]
    disabled: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class IdentityRow(Base):
    """Whom a provider of sign-ins means by a subject."""

    __tablename__ = "identities"

    issuer: Mapped[str] = mapped_column(Text, primary_key=True)
    subject: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)


class UserRow(Base):
    """A person who signs in, with a password (argon2) or by a provider."""

    __tablename__ = "users"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    role: Mapped[str] = mapped_column(Text)
    org_id: Mapped[int | None]
    password_hash: Mapped[str] = mapped_column(Text)
    session_epoch: Mapped[int]
    disabled: Mapped[bool]
    created_at: Mapped[datetime]
