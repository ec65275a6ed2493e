"""The tables. A change here needs a migration; a test compares the two.

History outlives its subjects, so rows refer to stacks, targets and commands by name. There are only two foreign keys,
for references that must never dangle: the command of an action, and the version of a resource that a stack owns.

`declared`, `targets.base_url`, `stacks.head` and `changes` repeat what other columns say, so that a query about a few
targets does not read the whole fleet. They are written in the same transaction.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)

from garrison.store.sql.columns import Json, Utc, Words

__all__ = [
    "REVISION",
    "VERSION_TABLE",
    "actions",
    "agents",
    "api_keys",
    "audit",
    "changes",
    "commands",
    "contents",
    "declared",
    "events",
    "instances",
    "leases",
    "looks",
    "meta",
    "metadata",
    "observations",
    "owned",
    "resources",
    "stacks",
    "targets",
    "to_tidy",
    "usage",
    "usage_batches",
]

REVISION = "0007"
"""The latest migration, whose schema this program works with."""

VERSION_TABLE = "garrison_revision"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def _where(condition: str) -> dict[str, Any]:
    """Return the condition of a partial index. SQLite uses it only if a query repeats it word for word.

    The migrations, which make the indexes, have it for PostgreSQL too. Here it would import that dialect for everybody.
    """
    return {"sqlite_where": text(condition)}


# SQLite assigns row ids only to a column of type INTEGER.
_Number = BigInteger().with_variant(Integer(), "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("identity", Words, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("keys_revision", BigInteger, nullable=False, server_default="0"),
    comment="one row",
)

stacks = Table(
    "stacks",
    metadata,
    Column("name", Words, primary_key=True),
    Column("declaration", Json, nullable=False),
    Column("at", Utc, nullable=False),
    Column("version", Integer, nullable=False),
    Column("command", Words),
    Column("ending", Boolean, nullable=False),
    Column("head", Json),
)

declared = Table(
    "declared",
    metadata,
    Column("stack", Words, primary_key=True),
    Column("target", Words, primary_key=True, index=True),
    Column("body", Words, nullable=False),
    comment="the part of a stack's declaration that concerns one target",
)

targets = Table(
    "targets",
    metadata,
    Column("name", Words, primary_key=True),
    Column("spec", Json, nullable=False),
    Column("declared_at", Utc, nullable=False),
    Column("state", Words, nullable=False),
    Column("cause", Words),
    Column("detail", Words, nullable=False),
    Column("since", Utc),
    Column("base", Words),
    Column("served", Json, nullable=False),
    Column("capabilities", Json, nullable=False),
    Column("base_url", Words, index=True),
    Index("ix_targets_unreachable", "name", **_where("state = 'unreachable'")),
)

looks = Table(
    "looks",
    metadata,
    Column("target", Words, primary_key=True),
    Column("last_seen", Utc),
    Column("last_checked", Utc),
    comment="times of looks, kept apart from the rows that rarely change",
)

to_tidy = Table(
    "to_tidy",
    metadata,
    Column("target", Words, primary_key=True),
    comment="targets that a stack stopped declaring",
)

observations = Table(
    "observations",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("target", Words, nullable=False),
    Column("at", Utc, nullable=False),
    Column("state", Words, nullable=False),
    Column("cause", Words),
    Column("detail", Words, nullable=False),
    Column("base", Words),
    Column("served", Json, nullable=False),
    Index(None, "target", "id"),
    sqlite_autoincrement=True,
    comment="how a target was seen, a row a change",
)

resources = Table(
    "resources",
    metadata,
    Column("target", Words, primary_key=True),
    Column("type", Words, primary_key=True),
    Column("name", Words, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("stack", Words, nullable=False),
    Column("label", Words, nullable=False),
    Column("operation", Words, nullable=False),
    Column("spec", Json, nullable=False),
    Column("served_path", Words, nullable=False),
    Column("parent", Words),
    Column("at", Utc, nullable=False),
    Column("command", Words),
    Column("cause", Words),
    Index(None, "at"),
    comment="versions; rows are added, never changed",
)

owned = Table(
    "owned",
    metadata,
    Column("target", Words, primary_key=True),
    Column("type", Words, primary_key=True),
    Column("name", Words, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("stack", Words, nullable=False, index=True),
    ForeignKeyConstraint(
        ["target", "type", "name", "version"],
        ["resources.target", "resources.type", "resources.name", "resources.version"],
    ),
    comment="which version of a resource its stack has now",
)

commands = Table(
    "commands",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("id", Words, nullable=False, unique=True),
    Column("kind", Words, nullable=False),
    Column("stack", Words, nullable=False),
    Column("mode", Words),
    Column("state", Words, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("by", Words, nullable=False),
    Column("summary", Json, nullable=False),
    Index(None, "stack", "number"),
    Index("ix_commands_running", "stack", **_where("state = 'running'")),
    sqlite_autoincrement=True,
)

actions = Table(
    "actions",
    metadata,
    Column("command", Words, ForeignKey("commands.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("target", Words, nullable=False),
    Column("type", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("label", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("step", Words, nullable=False),
    Column("before", Json),
    Column("after", Json),
    Column("error", Json),
    Column("gap_ms", Float(53)),
    Column("started_at", Utc),
    Column("ended_at", Utc),
    Index("ix_actions_started", "command", "target", **_where("state = 'started'")),
)

leases = Table(
    "leases",
    metadata,
    Column("stack", Words, primary_key=True),
    Column("token", Words, nullable=False, unique=True),
    Column("holder", Json, nullable=False),
    Column("acquired_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("token", Words, primary_key=True),
    Column("holder", Json, nullable=False),
    Column("since", Utc, nullable=False),
    Column("alive_at", Utc, nullable=False),
    Column("looked_at", Utc),
    Column("stacks", Json),
)

events = Table(
    "events",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("at", Utc, nullable=False, index=True),
    Column("kind", Words, nullable=False),
    Column("stack", Words),
    Column("target", Words),
    Column("name", Words),
    Column("cause", Words),
    Column("before", Json),
    Column("after", Json),
    Column("command", Words),
    Column("subject_kind", Words),
    Column("subject_name", Words),
    Index(None, "stack", "id"),
    Index(None, "target", "id"),
    Index(None, "target", "kind", "at"),
    Index(None, "subject_kind", "subject_name", "id"),
    sqlite_autoincrement=True,
)

instances = Table(
    "instances",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("node", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("spec", Json, nullable=False),
    Column("state", Words, nullable=False),
    Column("since", Utc, nullable=False),
    Column("reason", Words, nullable=False),
    Column("created", Utc, nullable=False),
    Column("updated", Utc, nullable=False),
    Column("wanted", Boolean, nullable=False),
    Column("port", Integer),
    Column("revision", Integer, nullable=False),
    Column("costs", Json, nullable=False),
    UniqueConstraint("node", "name"),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("name", Words, nullable=False),
    Column("digest", Words, nullable=False, unique=True),
    Column("prefix", Words, nullable=False),
    Column("secret", Words, nullable=False),
    Column("spec", Json, nullable=False),
    Column("created", Utc, nullable=False),
    Column("updated", Utc, nullable=False),
    Column("expires_at", Utc),
    Column("previous_digest", Words),
    Column("previous_prefix", Words),
    Column("rotates_until", Utc),
    Column("last_used", Utc),
    Column("revision", Integer, nullable=False),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("at", Utc, nullable=False, index=True),
    Column("who", Words, nullable=False),
    Column("key_id", _Number),
    Column("name", Words, nullable=False),
    Column("uid", _Number),
    Column("action", Words, nullable=False),
    Column("subject_kind", Words, nullable=False),
    Column("subject_name", Words, nullable=False),
    Column("before", Json),
    Column("after", Json),
    Column("status", Integer, nullable=False),
    Column("code", Words, nullable=False),
    Column("request_id", Words, nullable=False),
    Column("peer", Words, nullable=False),
    Column("node", Words, nullable=False),
    Index(None, "key_id", "id"),
    Index(None, "subject_kind", "subject_name", "id"),
    sqlite_autoincrement=True,
    comment="management calls, and what came of them",
)

usage = Table(
    "usage",
    metadata,
    Column("day", Words, primary_key=True),
    Column("key_id", _Number, primary_key=True, autoincrement=False),
    Column("route", Words, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("client_left", BigInteger, nullable=False),
    Column("uncounted", BigInteger, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("tokens_cached", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("seconds", Float(53), nullable=False),
    comment="sums over requests",
)

usage_batches = Table(
    "usage_batches",
    metadata,
    Column("source", Words, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", Utc, nullable=False),
    comment="the last batch of each process that is in the sums",
)

changes = Table(
    "changes",
    metadata,
    Column("kind", Words, primary_key=True),
    Column("name", Words, primary_key=True),
    Column("revision", BigInteger, nullable=False, index=True),
    comment="the last revision at which a stack or a target changed, or went",
)

contents = Table(
    "contents",
    metadata,
    Column("path", Words, primary_key=True),
    Column("stamp", Words, nullable=False),
    Column("digest", Words, nullable=False),
)
