"""The fleet: stacks, targets, resources, observations, commands, actions, leases, events."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.Text()
TIME = sa.DateTime(timezone=True)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    meta = op.create_table(
        "meta",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_meta"),
        comment="one row",
    )
    op.bulk_insert(meta, [{"id": 1, "identity": secrets.token_hex(16), "revision": 0}])
    _declared()
    _resources()
    _commands()
    _history()
    op.create_table(
        "leases",
        sa.Column("stack", TEXT, nullable=False),
        sa.Column("token", TEXT, nullable=False),
        sa.Column("holder", JSON, nullable=False),
        sa.Column("acquired_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("stack", name="pk_leases"),
        sa.UniqueConstraint("token", name="uq_leases_token"),
    )
    op.create_table(
        "contents",
        sa.Column("path", TEXT, nullable=False),
        sa.Column("stamp", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_contents"),
    )


def _declared() -> None:
    op.create_table(
        "stacks",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("declaration", JSON, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("command", TEXT),
        sa.Column("ending", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_stacks"),
    )
    op.create_table(
        "targets",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("declared_at", TIME, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("cause", TEXT),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("since", TIME),
        sa.Column("last_seen", TIME),
        sa.Column("last_checked", TIME),
        sa.Column("base", TEXT),
        sa.Column("served", JSON, nullable=False),
        sa.Column("capabilities", JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_targets"),
    )


def _resources() -> None:
    op.create_table(
        "resources",
        sa.Column("target", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("stack", TEXT, nullable=False),
        sa.Column("label", TEXT, nullable=False),
        sa.Column("operation", TEXT, nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("served_path", TEXT, nullable=False),
        sa.Column("parent", TEXT),
        sa.Column("at", TIME, nullable=False),
        sa.Column("command", TEXT),
        sa.Column("cause", TEXT),
        sa.PrimaryKeyConstraint("target", "type", "name", "version", name="pk_resources"),
        comment="versions; rows are added, never changed",
    )
    op.create_index("ix_resources_at", "resources", ["at"])
    op.create_table(
        "owned",
        sa.Column("target", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("stack", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("target", "type", "name", name="pk_owned"),
        sa.ForeignKeyConstraint(
            ["target", "type", "name", "version"],
            ["resources.target", "resources.type", "resources.name", "resources.version"],
            name="fk_owned_resources",
        ),
        comment="which version of a resource its stack has now",
    )
    op.create_index("ix_owned_stack", "owned", ["stack"])


def _commands() -> None:
    op.create_table(
        "commands",
        sa.Column("number", NUMBER, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("stack", TEXT, nullable=False),
        sa.Column("mode", TEXT),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("by", TEXT, nullable=False),
        sa.Column("summary", JSON, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_commands"),
        sa.UniqueConstraint("id", name="uq_commands_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commands_stack_number", "commands", ["stack", "number"])
    op.create_table(
        "actions",
        sa.Column("command", TEXT, nullable=False),
        sa.Column("seq", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("label", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("step", TEXT, nullable=False),
        sa.Column("before", JSON),
        sa.Column("after", JSON),
        sa.Column("error", JSON),
        sa.Column("gap_ms", sa.Float(53)),
        sa.Column("started_at", TIME),
        sa.Column("ended_at", TIME),
        sa.PrimaryKeyConstraint("command", "seq", name="pk_actions"),
        sa.ForeignKeyConstraint(["command"], ["commands.id"], name="fk_actions_commands", ondelete="CASCADE"),
    )


def _history() -> None:
    op.create_table(
        "observations",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("cause", TEXT),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("base", TEXT),
        sa.Column("served", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_observations"),
        sqlite_autoincrement=True,
        comment="how a target was seen, a row a change",
    )
    op.create_index("ix_observations_target_id", "observations", ["target", "id"])
    op.create_table(
        "events",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("stack", TEXT),
        sa.Column("target", TEXT),
        sa.Column("name", TEXT),
        sa.Column("cause", TEXT),
        sa.Column("before", JSON),
        sa.Column("after", JSON),
        sa.Column("command", TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_at", "events", ["at"])
    op.create_index("ix_events_stack_id", "events", ["stack", "id"])
    op.create_index("ix_events_target_id", "events", ["target", "id"])
