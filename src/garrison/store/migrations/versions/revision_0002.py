"""Narrow reads: declarations by target, times of looks, what changed since a revision, and running commands."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.Text()
TIME = sa.DateTime(timezone=True)

_BATCH = 500


def upgrade() -> None:
    _create()
    connection = op.get_bind()
    connection.exec_driver_sql(
        "INSERT INTO looks (target, last_seen, last_checked) SELECT name, last_seen, last_checked FROM targets"
    )
    # A program that was killed may have left some behind; the first command looks at all of them.
    connection.exec_driver_sql("INSERT INTO to_tidy (target) SELECT name FROM targets")
    op.drop_column("targets", "last_seen")
    op.drop_column("targets", "last_checked")
    _fill_declared(connection)
    _fill_addresses(connection)
    for kind, table in (("stack", "stacks"), ("target", "targets")):
        connection.exec_driver_sql(
            "INSERT INTO changes (kind, name, revision) "  # noqa: S608 - our constants
            f"SELECT '{kind}', name, (SELECT revision FROM meta) FROM {table}"
        )


def _create() -> None:
    op.create_table(
        "declared",
        sa.Column("stack", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("stack", "target", name="pk_declared"),
        comment="the part of a stack's declaration that concerns one target",
    )
    op.create_index("ix_declared_target", "declared", ["target"])
    op.create_table(
        "looks",
        sa.Column("target", TEXT, nullable=False),
        sa.Column("last_seen", TIME),
        sa.Column("last_checked", TIME),
        sa.PrimaryKeyConstraint("target", name="pk_looks"),
        comment="times of looks, kept apart from the rows that rarely change",
    )
    op.create_table(
        "to_tidy",
        sa.Column("target", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("target", name="pk_to_tidy"),
        comment="targets that a stack stopped declaring",
    )
    op.create_table(
        "changes",
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_changes"),
        comment="the last revision at which a stack or a target changed, or went",
    )
    op.create_index("ix_changes_revision", "changes", ["revision"])
    op.add_column("stacks", sa.Column("head", JSON))
    op.add_column("targets", sa.Column("base_url", TEXT))
    op.create_index("ix_targets_base_url", "targets", ["base_url"])
    op.create_index(
        "ix_targets_unreachable",
        "targets",
        ["name"],
        sqlite_where=sa.text("state = 'unreachable'"),
        postgresql_where=sa.text("state = 'unreachable'"),
    )
    op.create_index(
        "ix_commands_running",
        "commands",
        ["stack"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_actions_started",
        "actions",
        ["command", "target"],
        sqlite_where=sa.text("state = 'started'"),
        postgresql_where=sa.text("state = 'started'"),
    )
    op.create_index("ix_events_target_kind_at", "events", ["target", "kind", "at"])


def _fill_declared(connection: sa.Connection) -> None:
    rows = connection.exec_driver_sql("SELECT name, declaration FROM stacks").all()
    for stack, text in rows:
        declaration = json.loads(text)
        head = {key: value for key, value in declaration.items() if key not in ("targets", "adapters", "models")}
        connection.execute(
            sa.text("UPDATE stacks SET head = :head WHERE name = :name"), {"head": _dump(head), "name": stack}
        )
        bodies = _bodies(declaration)
        insert = sa.text("INSERT INTO declared (stack, target, body) VALUES (:stack, :target, :body)")
        for some in _batches({"stack": stack, "target": name, "body": _dump(body)} for name, body in bodies.items()):
            connection.execute(insert, some)


def _bodies(declaration: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """As `rules.parts` made them when this revision was released."""
    specs = declaration.get("targets", {})
    specs = specs if isinstance(specs, Mapping) else dict.fromkeys(specs)
    found: dict[str, dict[str, Any]] = {
        name: {"spec": spec, "adapters": [], "models": []} for name, spec in specs.items()
    }
    for kind in ("adapters", "models"):
        for one in declaration.get(kind, ()):
            empty: dict[str, Any] = {"spec": None, "adapters": [], "models": []}
            found.setdefault(one["target"], empty)[kind].append(one)
    return found


def _fill_addresses(connection: sa.Connection) -> None:
    rows = connection.exec_driver_sql("SELECT name, spec FROM targets").all()
    update = sa.text("UPDATE targets SET base_url = :base_url WHERE name = :name")
    for some in _batches({"name": name, "base_url": json.loads(spec).get("base_url")} for name, spec in rows):
        connection.execute(update, some)


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while some := list(islice(rows, _BATCH)):
        yield some
