"""What the plain installation leaves out."""

import sys

import pytest

from garrison.base.errors import InvalidError
from garrison.store.sql.address import parse_address
from garrison.store.sql.database import Database


def test_postgresql_without_its_extra_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidError, match="not installed") as caught:
        Database(parse_address("postgresql://someone@localhost/garrison"), wait=1)
    assert caught.value.hint == "Install it: pip install 'garrison[postgres]'"
