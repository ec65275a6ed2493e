"""Building an environment at its final path without losing the whole one that may be there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from garrison.engines.environments import MARKER

__all__ = ["clear", "recover", "replacing"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[None]:
    """Build at `path` in the body; what was whole there before comes back when the body fails."""
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
    """Undo an installation that did not reach its end: rubble goes, and what it was to replace comes back."""
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
    """The marker goes first, so that a removal that is cut short leaves rubble and no engine."""
    (path / MARKER).unlink(missing_ok=True)
    if path.exists():
        shutil.rmtree(path)
