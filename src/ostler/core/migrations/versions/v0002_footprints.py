"""Footprints: what earlier loads of a model took in memory and in time."""

import sqlalchemy as sa
from alembic import op

from ostler.core.database import JsonDocument, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "footprints",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("measured", JsonDocument, nullable=False),
        sa.Column("load_seconds", JsonDocument, nullable=False),
        sa.Column("files_bytes", sa.BigInteger(), nullable=False),
        sa.Column("has_served", sa.Boolean(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("node", "key", name="pk_footprints"),
    )
    op.create_index("ix_footprints_seen_at", "footprints", ["seen_at"], unique=False)
