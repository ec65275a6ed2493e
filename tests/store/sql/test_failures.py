"""A row an answer of a database, and the error it becomes."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from garrison.base.errors import (
    DeniedError,
    DiskFullError,
    InternalError,
    InvalidError,
    LockedError,
    UnreachableError,
)
from garrison.store.sql.address import parse_address
from garrison.store.sql.failures import translate

FILE = parse_address(Path("/data/garrison.db"))
SERVER = parse_address("postgresql://ada:s3cr3t@db/fleet")


class RefusalError(Exception):
    def __init__(self, says: str, sqlstate: str | None = None) -> None:
        super().__init__(says)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("code", "leaf"),
    [
        ("SQLITE_BUSY", LockedError),
        ("SQLITE_LOCKED", LockedError),
        ("SQLITE_BUSY_SNAPSHOT", LockedError),
        ("SQLITE_FULL", DiskFullError),
        ("SQLITE_NOTADB", InvalidError),
        ("SQLITE_CORRUPT", InvalidError),
        ("SQLITE_READONLY", DeniedError),
        ("SQLITE_CANTOPEN", DeniedError),
        ("SQLITE_ERROR", InternalError),
    ],
)
def test_sqlite(code, leaf):
    says = sqlite3.OperationalError("what it says")
    says.sqlite_errorcode = getattr(sqlite3, code)
    found = translate(OperationalError("SELECT secret", {"p": "parameter"}, says), FILE)
    assert type(found) is leaf
    assert "/data/garrison.db" in found.message
    assert "secret" not in found.message + str(found.hint)
    assert found.hint or leaf is InternalError


@pytest.mark.parametrize(
    ("state", "says", "leaf"),
    [
        (None, 'connection failed: connection to server at "db" failed: Connection refused', UnreachableError),
        (None, "connection timeout expired", UnreachableError),
        (None, 'connection failed: FATAL:  password authentication failed for user "ada"', DeniedError),
        (None, "connection failed: fe_sendauth: no password supplied", DeniedError),
        (None, 'connection failed: FATAL:  no pg_hba.conf entry for host "10.0.0.1"', DeniedError),
        (None, 'connection failed: FATAL:  database "fleet" does not exist', InvalidError),
        ("57P01", "terminating connection due to administrator command", UnreachableError),
        ("53300", "sorry, too many clients already", UnreachableError),
        ("08006", "connection failure", UnreachableError),
        ("55P03", "canceling statement due to lock timeout", LockedError),
        ("57014", "canceling statement due to statement timeout", LockedError),
        ("53100", "could not extend file", DiskFullError),
        ("42501", "permission denied for schema public", DeniedError),
        ("25006", "cannot execute INSERT in a read-only transaction", InvalidError),
        ("42703", "column does not exist", InternalError),
    ],
)
def test_postgresql(state, says, leaf):
    found = translate(DBAPIError("SELECT secret", {}, RefusalError(says + "\nmore lines", state)), SERVER)
    assert type(found) is leaf
    assert "postgresql://ada@db/fleet" in found.message
    assert "s3cr3t" not in found.message
    assert "\n" not in found.message


def test_a_lost_connection_is_unreachable_whatever_it_says():
    lost = DBAPIError("", {}, RefusalError("the connection is closed", "XX000"), connection_invalidated=True)
    assert type(translate(lost, SERVER)) is UnreachableError


@pytest.mark.parametrize("address", [FILE, SERVER], ids=["sqlite", "postgresql"])
def test_a_refused_row_is_a_bug_and_an_empty_pool_is_not(address):
    assert type(translate(IntegrityError("", {}, RefusalError("UNIQUE", "23505")), address)) is InternalError
    assert type(translate(PoolTimeoutError("QueuePool limit"), address)) is LockedError
