"""Agents and their signs of life."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.Text()
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("token", TEXT, nullable=False),
        sa.Column("holder", JSON, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("alive_at", TIME, nullable=False),
        sa.Column("looked_at", TIME, nullable=True),
        sa.Column("stacks", JSON, nullable=True),
        sa.PrimaryKeyConstraint("token", name="pk_agents"),
    )
