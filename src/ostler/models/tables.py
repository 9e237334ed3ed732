"""The tables of models, their other names, and snapshots of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base


class ModelRow(Base):
    """One model. Open documents are checked by the engine's option table, not by columns.

    `desired_state`, `ignore_fit` and `ignored` (codes of other errors than that of the fit) are what a person
    wants, not parts of the recipe.
    """

    __tablename__ = "models"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    description: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(Text, index=True)
    read_only: Mapped[bool]
    engine: Mapped[str] = mapped_column(Text, index=True)
    runtime: Mapped[str] = mapped_column(Text)
    engine_command: Mapped[str | None] = mapped_column(Text)
    node: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(Text)
    source: Mapped[dict[str, Any]]
    runtime_options: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    options: Mapped[dict[str, Any]]
    extra_args: Mapped[list[str]]
    env: Mapped[dict[str, Any]]
    request_defaults: Mapped[dict[str, Any]]
    policy: Mapped[dict[str, Any]]
    dialect_data: Mapped[dict[str, Any]]
    desired_state: Mapped[str] = mapped_column(Text)
    ignore_fit: Mapped[bool] = mapped_column(server_default=false())
    ignored: Mapped[list[str]] = mapped_column(server_default="[]")
    archived: Mapped[bool]
    revision: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(index=True)
    updated_at: Mapped[datetime]


class RecipeRow(Base):
    """A snapshot of a model's record under a name of its own; `left_out` names the secrets not in it."""

    __tablename__ = "recipes"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    description: Mapped[str] = mapped_column(Text)
    model_id: Mapped[int | None]
    model_name: Mapped[str] = mapped_column(Text)
    engine: Mapped[str] = mapped_column(Text)
    content: Mapped[dict[str, Any]]
    left_out: Mapped[list[str]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class AliasRow(Base):
    """Another served name of a model; unique among all names."""

    __tablename__ = "model_aliases"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
