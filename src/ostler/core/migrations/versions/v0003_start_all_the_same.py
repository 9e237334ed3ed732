"""A person's word that a model starts although its memory is not there is kept with the model."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("ignore_fit", sa.Boolean(), nullable=False, server_default=sa.false()))
