"""The stores: in memory, on SQLite, and on a real PostgreSQL that the session starts."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode adds no paths

import postgresql as postgresql_module

from garrison.store.fleet_store import FleetStore
from garrison.store.sql.store import SqlStore, open_store
from garrison.testing.store import MemoryStore

SQL = ["sqlite", pytest.param("postgresql", marks=pytest.mark.service)]
Place = str | Path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgresql_module.PostgreSQL]:
    bin_dir = postgresql_module.programs()
    if bin_dir is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed; on Debian: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    with postgresql_module.PostgreSQL(bin_dir) as server:
        yield server


@pytest.fixture(params=SQL)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a database, on either kind."""
    if request.param == "sqlite":
        return tmp_path / "data" / "garrison.db"
    server: postgresql_module.PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def opened() -> Iterator[Callable[..., SqlStore]]:
    """`opened(place)`: a store that is closed when the test is over."""
    stores: list[SqlStore] = []

    def call(place: Place, **options: float) -> SqlStore:
        stores.append(open_store(place, **options))
        return stores[-1]

    yield call
    for store in stores:
        store.close()


@pytest.fixture
def sql_store(place: Place, opened: Callable[..., SqlStore]) -> SqlStore:
    return opened(place)


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "garrison.db"
    open_store(path).close()
    return path


@pytest.fixture(scope="session")
def empty_database(postgresql: postgresql_module.PostgreSQL) -> str:
    """The name of a database that is migrated, to copy."""
    open_store(postgresql.database("empty")).close()
    return "empty"


@pytest.fixture(params=["memory", *SQL])
def store(request: pytest.FixtureRequest, tmp_path: Path, opened: Callable[..., SqlStore]) -> FleetStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return opened(shutil.copy(request.getfixturevalue("empty_file"), tmp_path / "garrison.db"))
    template = request.getfixturevalue("empty_database")
    server: postgresql_module.PostgreSQL = request.getfixturevalue("postgresql")
    return opened(server.database(like=template))
