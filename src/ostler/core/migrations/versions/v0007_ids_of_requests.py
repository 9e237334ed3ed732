"""The id of each accounted request, by which its client knows it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("requests", sa.Column("request_id", sa.Text(), nullable=True))
