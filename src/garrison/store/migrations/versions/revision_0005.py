"""API keys and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.Text()
TIME = sa.DateTime(timezone=True)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("meta", sa.Column("keys_revision", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "api_keys",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("prefix", TEXT, nullable=False),
        sa.Column("secret", TEXT, nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("previous_digest", TEXT),
        sa.Column("previous_prefix", TEXT),
        sa.Column("rotates_until", TIME),
        sa.Column("last_used", TIME),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("key_id", NUMBER),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("uid", NUMBER),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("subject_kind", TEXT, nullable=False),
        sa.Column("subject_name", TEXT, nullable=False),
        sa.Column("before", JSON),
        sa.Column("after", JSON),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("code", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("peer", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
        comment="management calls, and what came of them",
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_key_id_id", "audit", ["key_id", "id"])
    op.create_index("ix_audit_subject_kind_subject_name_id", "audit", ["subject_kind", "subject_name", "id"])
