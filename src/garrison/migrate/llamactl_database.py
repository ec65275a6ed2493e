"""Reads llamactl's database: the options of its instances. Read-only, and under limits."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from garrison.base.errors import InvalidError, NotFoundError

__all__ = ["MAGIC", "read_instances"]

MAGIC = b"SQLite format 3\0"
_MOST_INSTANCES = 10_000
_MOST_CHARACTERS = 1024 * 1024
_SECONDS = 10.0
_STEPS = 10_000
_QUERY = "SELECT name, substr(options_json, 1, ?) FROM instances ORDER BY name LIMIT ?"


def read_instances(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the options of each instance.

    Raises:
        NotFoundError: there is no such file.
        InvalidError: it is not a database of llamactl, holds too much, or takes too long to read.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no database {path}", hint="Name llamactl's database, `llamactl.db`.")
    try:
        # `mode=ro` neither creates nor changes anything; a database in WAL mode needs its -shm file beside it.
        with _opened(f"{path.absolute().as_uri()}?mode=ro") as connection:
            rows = connection.execute(_QUERY, (_MOST_CHARACTERS + 1, _MOST_INSTANCES + 1)).fetchall()
    except sqlite3.Error as error:
        raise InvalidError(
            f"{path} cannot be read as a database of llamactl: {error}",
            hint="Stop llamactl and try again, or name its config file or an exported instance.",
        ) from None
    if len(rows) > _MOST_INSTANCES:
        raise InvalidError(f"{path} holds more than {_MOST_INSTANCES} instances", hint="Export the ones you need.")
    return [(str(name), _options(path, name, text)) for name, text in rows]


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[sqlite3.Connection]:
    deadline = time.monotonic() + _SECONDS
    connection = sqlite3.connect(uri, uri=True, timeout=_SECONDS)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")  # it may be a stranger's file
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        yield connection
    finally:
        connection.close()


def _options(path: Path, name: object, text: object) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > _MOST_CHARACTERS:
        raise InvalidError(f"{path}: the options of instance {name!r} are no text, or too long")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidError(f"{path}: the options of instance {name!r} are not JSON") from None
    if not isinstance(found, dict):
        raise InvalidError(f"{path}: the options of instance {name!r} are not a JSON object")
    return found
