"""Translates errors of databases and drivers into leaves of GarrisonError."""

import shutil
import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from garrison.base.errors import (
    DeniedError,
    DiskFullError,
    GarrisonError,
    InternalError,
    InvalidError,
    LockedError,
    UnreachableError,
)
from garrison.store.sql.address import Address

__all__ = ["of_sqlite", "translate"]

_LITTLE = 1 << 20
_FULL_HINT = "Free some space there. Nothing was lost: what could not be written was not done."
_LOCKED_HINT = "Run the command again; if it keeps failing, look for a program that keeps the database open."


def translate(error: DBAPIError | PoolTimeoutError, address: Address) -> GarrisonError:
    """Return the leaf for `error`. Messages have the driver's first line, never the statement or its parameters."""
    if isinstance(error, PoolTimeoutError):
        return LockedError(f"every connection to the database {address.shown} is in use", hint=_LOCKED_HINT)
    says = _first_line(error.orig)
    if isinstance(error, IntegrityError):
        return InternalError(f"the database {address.shown} refused a row: {says}")
    if address.path is not None:
        return of_sqlite(error.orig, address)
    return _of_postgresql(getattr(error.orig, "sqlstate", None), error.connection_invalidated, says, address)


def of_sqlite(error: BaseException | None, address: Address) -> GarrisonError:
    """Return the leaf for an error of SQLite's driver."""
    path, says = address.shown, _first_line(error)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    details = {"path": path}
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockedError(f"the database {path} is being written by another program", hint=_LOCKED_HINT)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _free(address) < _LITTLE):
        return DiskFullError(f"no space to write the database {path}", hint=_FULL_HINT, details=details)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return InvalidError(
            f"{path} is not a SQLite database, or is damaged: {says}",
            hint="Move it away and restore a backup. Without a backup a new database is created, which `apply` and "
            "`adopt` fill again.",
            details=details,
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return DeniedError(
            f"the database {path} cannot be opened for writing: {says}",
            hint="Garrison must be able to write the file and its directory.",
            details=details,
        )
    return InternalError(f"the database {path}: {says}")


def _free(address: Address) -> int:
    assert address.path is not None
    try:
        return shutil.disk_usage(address.path.parent).free
    except OSError:
        return 0


def _of_postgresql(state: str | None, lost: bool, says: str, address: Address) -> GarrisonError:
    where = f"the database {address.shown}"
    state = state or _state_of_refusal(says)
    if state in ("55P03", "57014", "40001", "40P01"):
        return LockedError(f"{where} did not answer in time: {says}", hint=_LOCKED_HINT)
    if state == "53100":
        return DiskFullError(f"no space to write {where}", hint=_FULL_HINT)
    if state.startswith("28") or state == "42501":
        return DeniedError(
            f"{where}: {says}",
            hint="Check user and password (GARRISON_DATABASE_URL, or ~/.pgpass); the user must own the database.",
        )
    if state == "3D000":
        return InvalidError(f"{where} does not exist", hint="Create it first, with createdb.")
    if state == "25006":
        return InvalidError(f"{where} is read-only", hint="Name the primary server, not a replica of it.")
    if lost or not state or state[:2] in ("08", "53", "57"):
        return UnreachableError(
            f"{where} cannot be reached: {says}",
            hint="Start the server, or correct GARRISON_DATABASE_URL. What failed here changed nothing.",
        )
    return InternalError(f"{where}: {says}")


def _state_of_refusal(says: str) -> str:
    """Return the SQLSTATE of a refused connection, or "" if it cannot be told.

    psycopg has only the server's message for it, which is in English unless the server is set up otherwise.
    """
    if "authentication failed" in says or "no password supplied" in says or "pg_hba.conf" in says:
        return "28000"
    if "database" in says and "does not exist" in says:
        return "3D000"
    return ""


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [""])[0]
