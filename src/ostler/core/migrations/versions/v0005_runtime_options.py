"""A model's wishes for its container."""

import sqlalchemy as sa
from alembic import op

from ostler.core.database import JsonDocument

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("runtime_options", JsonDocument, nullable=False, server_default="{}"))
