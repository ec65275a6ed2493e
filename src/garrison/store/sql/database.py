"""Connections and transactions, on either database.

There is one writer at a time on both: on SQLite by its own lock, on PostgreSQL by an advisory lock that every writing
transaction takes first, except for heartbeats. Writes are few and short. In exchange there is no deadlock and nothing
to retry, versions are numbered without gaps, and the ids of events have the order in which the events become visible,
which followers rely on. Readers never wait for a writer, and see one state of the database throughout a transaction.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from garrison.base.errors import InvalidError
from garrison.store.sql.address import Address
from garrison.store.sql.failures import of_sqlite, translate

__all__ = ["Database"]

_WRITER_LOCK = 0x6761727269736F6E
"""The number of PostgreSQL's advisory lock: `garrison` in ASCII."""


class Database:
    """A pool of connections.

    Args:
        wait: seconds to wait for a connection, and for another writer.
    """

    def __init__(self, address: Address, *, wait: float) -> None:
        self.address = address
        self._reader: Engine
        self._writer: Engine
        engine = _sqlite(address, wait) if address.path is not None else _postgresql(address, wait)
        self._engine = engine
        if address.path is not None:
            self._reader, self._writer = engine, engine.execution_options(writes=True)
        else:
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._writer = engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Run the body in a read-only transaction.

        Raises:
            GarrisonError: a leaf of it; see `failures`.
        """
        with self._translated(), self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, *, ordered: bool = True) -> Iterator[Connection]:
        """Run the body in a transaction, which is committed and on disk at its end, or rolled back if it raises.

        Args:
            ordered: False for writes that need neither a number nor an order, such as heartbeats. On PostgreSQL they
                do not wait for other writers; SQLite has a single lock.

        Raises:
            GarrisonError: a leaf of it; see `failures`.
        """
        with self._translated(), self._writer.begin() as connection:
            if ordered and self.address.path is None:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")
            yield connection

    @contextlib.contextmanager
    def outside_transactions(self) -> Iterator[Any]:
        """Return the driver's connection, for settings of SQLite that stay in the file."""
        with self._translated(), contextlib.closing(self._engine.raw_connection()) as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeoutError) as error:
            raise translate(error, self.address) from None
        except sqlite3.Error as error:
            raise of_sqlite(error, self.address) from None


def _sqlite(address: Address, wait: float) -> Engine:
    engine = create_engine(
        address.url,
        connect_args={"timeout": wait},
        pool_size=4,
        max_overflow=4,
        pool_timeout=wait,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions itself
        # FULL: a commit survives a power cut as soon as it returns. An intention must be on disk before its effect;
        # with NORMAL, WAL mode could lose the last commits.
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: SQLite lets no transaction that has already read wait for another writer.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(address: Address, wait: float) -> Engine:
    milliseconds = int(wait * 1000)
    ours: dict[str, Any] = {
        "application_name": "garrison",
        "connect_timeout": max(2, int(wait)),
        "tcp_user_timeout": max(30_000, milliseconds),
        "options": f"-c timezone=UTC -c lock_timeout={milliseconds} -c statement_timeout=60000"
        " -c idle_in_transaction_session_timeout=60000",
    }
    given = {name: value for name, value in ours.items() if name not in address.url.query}
    try:
        return create_engine(
            address.url,
            connect_args=given,
            pool_size=4,
            max_overflow=4,
            pool_timeout=wait,
            pool_pre_ping=True,  # after a restart of the server, stale connections are replaced
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise InvalidError(
            f"PostgreSQL needs a package that is not installed: {error.name}",
            hint="Install it: pip install 'garrison[postgres]'",
        ) from None
