"""Upgrades a database to the schema of this program when it is opened. Safe for several processes at once."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect

from garrison.base.errors import DeniedError, DiskFullError, InvalidError, LockedError
from garrison.base.locks import file_lock
from garrison.store.sql.database import Database
from garrison.store.sql.schema import REVISION, VERSION_TABLE, metadata

__all__ = ["bring_up", "make_file"]

_PATIENCE = 120.0
_MIGRATIONS = Path(__file__).parent.parent / "migrations"


def make_file(path: Path) -> None:
    """Create an empty file with mode 0600, unless it exists. SQLite gives its companion files the same mode.

    Raises:
        DeniedError, DiskFullError, InvalidError: it cannot be created, or is a directory.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except PermissionError:
        raise DeniedError(
            f"the database {path} cannot be opened for writing",
            hint="Garrison must be able to write the file and its directory; GARRISON_DATA_DIR names another.",
        ) from None
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise DiskFullError(f"no space to create the database {path}", hint="Free some space there.") from None
        raise InvalidError(
            f"the database {path} cannot be created: {error.strerror}",
            hint="GARRISON_DATA_DIR names another directory.",
        ) from None


def bring_up(database: Database) -> None:
    """Migrate to `REVISION`, if necessary. Alembic is imported only then.

    Raises:
        InvalidError: the database was made by a newer program, or is not a database of Garrison.
        LockedError: another process is still upgrading it.
    """
    with database.read() as connection:
        current = _revision(connection) == REVISION
        if current and (database.address.path is None or _in_wal(connection)):
            return
        _check_ours(connection, database)
    if current:
        # Restored from a dump, without WAL mode. If another process has it open, a later start enters WAL mode.
        with contextlib.suppress(LockedError), _alone(database):
            pass
        return
    with _alone(database), database.write() as connection:
        found = _revision(connection)
        if found == REVISION:
            return
        _migrate(connection, database, found)


def _migrate(connection: Connection, database: Database, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if found is not None and found not in known:
        raise InvalidError(
            f"the database {database.address.shown} was made by a newer Garrison: it is at revision {found}, "
            f"this program knows revisions up to {REVISION}",
            hint="Use the newer Garrison, or restore the backup from before its first start.",
            details={"database_revision": found, "program_revision": REVISION},
        )
    if database.address.path is None:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # a large table may take its time
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextlib.contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Exclude other processes that open the database.

    On PostgreSQL the writer lock is enough. On SQLite it is not: entering WAL mode needs the whole file, and fails at
    once if another process does the same.
    """
    path = database.address.path
    if path is None:
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    with file_lock(lock, timeout=_PATIENCE, purpose="is upgrading the database"):
        with database.outside_transactions() as connection:
            _enter_wal(connection)
        yield


def _enter_wal(connection: Any) -> None:
    # The mode stays in the file. Where the file system does not support it (some network mounts), SQLite keeps its
    # rollback journal, which is slower and as safe.
    connection.cursor().execute("PRAGMA journal_mode=WAL").fetchall()


def _in_wal(connection: Connection) -> bool:
    return connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    row = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").first()  # noqa: S608 - our constant
    return None if row is None else str(row[0])


def _check_ours(connection: Connection, database: Database) -> None:
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE in tables:
        return
    foreign = tables if database.address.path is not None else tables & set(metadata.tables)
    if foreign:
        raise InvalidError(
            f"the database {database.address.shown} is not a database of Garrison: it has a foreign table "
            f"{min(foreign)!r}",
            hint="Give Garrison a database of its own.",
        )
