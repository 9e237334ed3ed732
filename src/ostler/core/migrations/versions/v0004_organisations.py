"""Organisations, models of upstreams, whose keys and requests are, and what keys are for."""

import sqlalchemy as sa
from alembic import op

from ostler.core.database import JsonDocument, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organisations"),
        sa.UniqueConstraint("name", name="uq_organisations_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "external_models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_external_models"),
    )
    op.add_column("users", sa.Column("org_id", sa.Integer(), nullable=True))
    for column in (
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("org_id", sa.Integer(), nullable=True),
        sa.Column("scopes", JsonDocument, nullable=True),
        sa.Column("addresses", JsonDocument, nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("keys", column)
    for column in (
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("org_id", sa.Integer(), nullable=True),
    ):
        op.add_column("requests", column)


def downgrade() -> None:
    for name in ("org_id", "user_id"):
        op.drop_column("requests", name)
    for name in ("disabled", "addresses", "scopes", "org_id", "user_id"):
        op.drop_column("keys", name)
    op.drop_column("users", "org_id")
    op.drop_table("external_models")
    op.drop_table("organisations")
