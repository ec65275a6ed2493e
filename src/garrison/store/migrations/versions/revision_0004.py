"""Instances of a machine."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.Text()
TIME = sa.DateTime(timezone=True)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "instances",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("port", sa.Integer()),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("costs", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("node", "name", name="uq_instances_node_name"),
        sqlite_autoincrement=True,
    )
