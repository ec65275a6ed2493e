"""Events have a subject: its kind and its name. That of older events follows from their other columns."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("events", sa.Column("subject_kind", TEXT))
    op.add_column("events", sa.Column("subject_name", TEXT))
    op.get_bind().exec_driver_sql(
        "UPDATE events SET "
        "subject_kind = CASE WHEN target IS NOT NULL AND name IS NOT NULL THEN 'adapter' "
        "WHEN target IS NOT NULL THEN 'target' WHEN stack IS NOT NULL THEN 'stack' ELSE 'fleet' END, "
        "subject_name = CASE WHEN target IS NOT NULL AND name IS NOT NULL THEN target || '/' || name "
        "WHEN target IS NOT NULL THEN target WHEN stack IS NOT NULL THEN stack ELSE '' END"
    )
    op.create_index("ix_events_subject_kind_subject_name_id", "events", ["subject_kind", "subject_name", "id"])
