"""Replace a directory by a finished one, so that a kill at any moment loses neither.

    1 target -> <NAME>.bak.<time>     set the old one aside
    2 staged -> target                move the new one into place
    3 backup -> trash, then deleted   or, if Garrison did not make it, -> <NAME>.replaced.<time>

Two renames and not one exchange: not every file system can exchange two directories. After a kill between 1 and 2 there
is no target; the next run puts the newest backup back and, since the staged directory is still whole, repeats the swap.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from garrison.base.clock import Clock
from garrison.base.errors import InvalidError
from garrison.base.files import fsync_dir
from garrison.base.locks import file_lock
from garrison.base.presence import is_file
from garrison.models.layout import Layout, backup_of
from garrison.models.record import read_record

__all__ = ["INSTALL_SECONDS", "SWAP_STEPS", "discard", "install", "recover"]

SWAP_STEPS = (
    "before-check",
    "before-record",
    "before-backup",
    "before-rename",
    "before-cleanup",
    "before-delete",
    "done",
)
"""The moments at which `at` is called, in order, the first two by `resolve`; tests kill the process there."""

At = Callable[[str], None]

INSTALL_SECONDS = 120.0
"""How long to wait for `layout.install_lock`, which is held for renames and a deletion, never for a download."""

_LOCK_SECONDS = 60.0  # renames take milliseconds; after a minute the file system hangs
_PURPOSE = "is renaming directories below the models root"


def install(staged: Path, target: Path, layout: Layout, clock: Clock, at: At | None = None) -> Path | None:
    """Make `staged` the new `target`. The caller holds the model's lock and has validated `staged`.

    Returns:
        Where the old directory is kept, if Garrison did not make it.

    Raises:
        InvalidError: the file system refused; the message names the path. What was there before still is.
    """
    at = at or _pass
    with _swap_lock(layout, clock):
        try:
            _restore(target, layout, clock)
            backup = layout.backup_path(target, clock.now())
            target.parent.mkdir(parents=True, exist_ok=True)
            at("before-backup")
            if os.path.lexists(target):
                target.rename(backup)
                fsync_dir(target.parent)
            at("before-rename")
            try:
                staged.rename(target)
            except OSError:
                if os.path.lexists(backup):
                    backup.rename(target)
                raise
            fsync_dir(target.parent)
            at("before-cleanup")
            kept = _set_aside(backup, target, layout, clock, at) if os.path.lexists(backup) else None
        except OSError as error:
            raise InvalidError(
                f"{target} could not be replaced: {error.strerror} ({error.filename})",
                hint="Check the permissions of the models directory; the download is kept and is used by the next run.",
            ) from None
        at("done")
    return kept


def recover(target: Path, layout: Layout, clock: Clock) -> Path | None:
    """Repair what an interrupted swap of `target` left behind. The caller holds the model's lock.

    Returns:
        The backup that was put back, if any.
    """
    if not _leftovers(target, layout):
        return None
    with _swap_lock(layout, clock):
        return _restore(target, layout, clock)


def discard(directory: Path, layout: Layout, clock: Clock, at: At | None = None) -> None:
    """Delete a directory: by a rename first, so that it is gone at once and the deletion itself can be interrupted."""
    trash = layout.trash_path(clock.now())
    trash.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.rename(trash)
    (at or _pass)("before-delete")
    _delete(trash)


def _leftovers(target: Path, layout: Layout) -> bool:
    return bool(_backups(target)) or bool(_trash(layout))


def _restore(target: Path, layout: Layout, clock: Clock) -> Path | None:
    restored = None
    backups = _backups(target)
    if backups and not os.path.lexists(target):
        restored = backups.pop()
        restored.rename(target)
        fsync_dir(target.parent)
    for backup in backups:
        _set_aside(backup, target, layout, clock, _pass)
    for trash in _trash(layout):
        _delete(trash)
    return restored


def _backups(target: Path) -> list[Path]:
    """Oldest first: their names sort by time."""
    try:
        names = sorted(entry.name for entry in target.parent.iterdir())
    except OSError:
        return []
    return [target.with_name(name) for name in names if backup_of(name) == target.name]


def _trash(layout: Layout) -> list[Path]:
    try:
        return [entry for entry in layout.staging_root.iterdir() if entry.name.startswith("trash.")]
    except OSError:
        return []


def _set_aside(backup: Path, target: Path, layout: Layout, clock: Clock, at: At) -> Path | None:
    if backup.is_symlink() or read_record(backup) is None:
        # A person put it there: even if it is broken, Garrison must not delete it.
        kept = layout.replaced_path(target, clock.now())
        backup.rename(kept)
        return kept
    discard(backup, layout, clock, at)
    return None


def _delete(path: Path) -> None:
    if path.is_symlink() or is_file(path):
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _swap_lock(layout: Layout, clock: Clock) -> contextlib.AbstractContextManager[object]:
    return file_lock(layout.swap_lock, timeout=_LOCK_SECONDS, purpose=_PURPOSE, clock=clock)


def _pass(_step: str) -> None:
    return None
