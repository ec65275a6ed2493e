"""Alembic's entry point. `garrison.store.sql.upgrade` passes a connection whose transaction holds the writer lock."""

from alembic import context

from garrison.store.sql.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
