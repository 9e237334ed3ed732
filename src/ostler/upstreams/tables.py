"""The table of models that engines elsewhere serve."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from ostler.core.database import Base


class ExternalRow(Base):
    """A model that an engine elsewhere serves."""

    __tablename__ = "external_models"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    engine: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
