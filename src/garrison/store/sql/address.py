"""Addresses of databases, and how they are shown: never with a password."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from garrison.base.errors import InvalidError

__all__ = ["Address", "parse_address"]

_HINT = "Use postgresql://user@host/database, or sqlite:///absolute/path; unset GARRISON_DATABASE_URL for the default."


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    Attributes:
        url: for SQLAlchemy, with its driver; contains the password.
        shown: for messages.
        path: of a SQLite file; None for a server.
    """

    url: URL
    shown: str
    path: Path | None

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def parse_address(place: str | Path) -> Address:
    """Parse the address of a database.

    Args:
        place: the path of a SQLite file, or a URL as text.

    Raises:
        InvalidError: the text is not a URL of a supported database. The message does not repeat it, since it may
            contain a password.
    """
    if isinstance(place, Path):
        path = place.absolute()
        return Address(URL.create("sqlite+pysqlite", database=str(path)), str(path), path)
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        raise InvalidError("the database's URL cannot be read", hint=_HINT) from None
    kind = url.drivername.split("+")[0]
    if kind == "sqlite":
        if not url.database or url.database == ":memory:" or url.query:
            raise InvalidError("the database's URL must name a SQLite file, and nothing behind it", hint=_HINT)
        return parse_address(Path(url.database))
    if kind not in ("postgresql", "postgres"):
        raise InvalidError("the database's URL must begin with postgresql:// or sqlite:///", hint=_HINT)
    if "@" in (url.host or ""):
        raise InvalidError(
            "the database's URL contains more than one @", hint="Write an @ that is part of the password as %40."
        )
    return Address(url.set(drivername="postgresql+psycopg"), _shown(url), None)


def _shown(url: URL) -> str:
    """Return the URL without password and query; libpq accepts a password in the query, too."""
    return URL.create(
        "postgresql", username=url.username, host=url.host, port=url.port, database=url.database
    ).render_as_string()
