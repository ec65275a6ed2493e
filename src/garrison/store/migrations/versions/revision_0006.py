"""Usage by day, key and route."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COUNTS = (
    "requests", "failed", "client_left", "uncounted",
    "tokens_in", "tokens_out", "tokens_cached", "bytes_in", "bytes_out",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("day", TEXT, nullable=False),
        sa.Column("key_id", NUMBER, nullable=False),
        sa.Column("route", TEXT, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("day", "key_id", "route", name="pk_usage"),
        comment="sums over requests",
    )
    op.create_table(
        "usage_batches",
        sa.Column("source", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("source", name="pk_usage_batches"),
        comment="the last batch of each process that is in the sums",
    )
