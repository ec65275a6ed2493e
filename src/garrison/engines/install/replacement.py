"""Build an environment at its final path without losing a complete one that may be there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from garrison.engines.environments import MARKER

__all__ = ["clear", "recover", "replacing"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[None]:
    """Build at `path` in the body; if the body fails, the complete environment that was there is restored."""
    before = _set_aside(path)
    if (path / MARKER).is_file():
        path.rename(before)
    clear(path)
    try:
        yield
    except BaseException:
        recover(path)
        raise
    clear(before)


def recover(path: Path) -> None:
    """Undo an incomplete installation: delete it, and restore the environment that it was to replace."""
    before = _set_aside(path)
    if (path / MARKER).is_file():
        clear(before)
        return
    clear(path)
    if before.exists():
        before.rename(path)


def _set_aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def clear(path: Path) -> None:
    """Delete an environment, the marker first, so that an interrupted removal leaves no visible environment."""
    (path / MARKER).unlink(missing_ok=True)
    if path.exists():
        shutil.rmtree(path)
