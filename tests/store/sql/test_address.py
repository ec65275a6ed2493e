"""Which database is meant, and that no password is shown."""

from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.store.sql.address import parse_address

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("place", "shown", "driver"),
    [
        (Path("/data/a?b#c%20.db"), "/data/a?b#c%20.db", "sqlite+pysqlite"),
        ("sqlite:////data/x.db", "/data/x.db", "sqlite+pysqlite"),
        (f"postgresql://ada:{SECRET}@db:5433/fleet", "postgresql://ada@db:5433/fleet", "postgresql+psycopg"),
        (f"postgres://ada:{SECRET}@db/fleet", "postgresql://ada@db/fleet", "postgresql+psycopg"),
        (f"postgresql+asyncpg://ada:{SECRET}@db/fleet", "postgresql://ada@db/fleet", "postgresql+psycopg"),
        (f"postgresql://db/fleet?password={SECRET}&sslmode=require", "postgresql://db/fleet", "postgresql+psycopg"),
        ("postgresql://ada:a%40b@db/fleet", "postgresql://ada@db/fleet", "postgresql+psycopg"),
    ],
)
def test_an_address_is_shown_without_its_password(place, shown, driver):
    found = parse_address(place)
    assert (found.shown, found.url.drivername) == (shown, driver)
    assert SECRET not in repr(found) + str(found)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (f"mysql://ada:{SECRET}@db/x", "must begin with"),
        (f"ada:{SECRET}@db", "cannot be read"),
        (f"postgresql://ada:{SECRET}@more@db/x", "more than one @"),
        (f"postgresql://ada:{SECRET}@db:port/x", "cannot be read"),
        ("sqlite://", "must name a SQLite file"),
        ("sqlite:///:memory:", "must name a SQLite file"),
        ("sqlite:///x.db?mode=ro", "must name a SQLite file"),
    ],
)
def test_what_is_no_address_is_not_repeated(place, says):
    with pytest.raises(InvalidError, match=says) as caught:
        parse_address(place)
    assert SECRET not in caught.value.message + str(caught.value.hint)
    assert caught.value.hint
