"""Whether there is a file or a directory at a path. As the methods of `Path`, which raise where this user may not look,
as below the home of another user; they return False from Python 3.14 on."""

from collections.abc import Callable
from pathlib import Path

__all__ = ["absence", "exists", "is_dir", "is_file", "is_missing"]


def absence(path: Path) -> str | None:
    """Why nothing is seen at a path, as the end of a sentence; None if there is something, a dangling link included."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    return None


def exists(path: Path) -> bool:
    return _seen(path.exists)


def is_dir(path: Path) -> bool:
    return _seen(path.is_dir)


def is_file(path: Path) -> bool:
    return _seen(path.is_file)


def is_missing(path: Path) -> bool:
    """Whether there is certainly nothing. Where this user may not look, reading says why."""
    try:
        return not path.exists()
    except OSError:
        return False


def _seen(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except OSError:
        return False
