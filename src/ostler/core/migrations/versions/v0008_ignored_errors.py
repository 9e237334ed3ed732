"""The errors that a person said do not matter for a model's start are kept with the model, like its fit."""

import sqlalchemy as sa
from alembic import op

from ostler.core.database import JsonDocument

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("ignored", JsonDocument, nullable=False, server_default="[]"))
