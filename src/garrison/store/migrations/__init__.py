"""Alembic migrations, run by `garrison.store.sql.upgrade`. A released one is never edited; the next one corrects it."""
