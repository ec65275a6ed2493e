"""Bring a directory, a file or a tar into a library: check, stage, record, swap. A kill at any moment leaves what was.

The staging directory is on the library's file system and carries a name of its own; what a killed import left there is
deleted by the next one. The caller holds the lock of the name.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, InvalidError
from garrison.base.locks import file_lock
from garrison.models.archive import is_archive, unpack
from garrison.models.content import is_file
from garrison.models.copying import copy_files
from garrison.models.hashing import hash_files
from garrison.models.layout import Layout
from garrison.models.progress import Progress
from garrison.models.record import ModelRecord, write_record
from garrison.models.space import FreeBytes, disk_full, out_of_space
from garrison.models.swap import INSTALL_SECONDS, install, recover
from garrison.models.validate import list_files
from garrison.models.verify import RECORDED_NAME, read_recorded, record_digests

__all__ = ["Adopted", "adopt"]


@dataclass(frozen=True, slots=True)
class Adopted:
    """`changed` is False when the same content was there already; `kept` is where a hand-copied predecessor went."""

    bytes: int
    changed: bool
    kept: Path | None


def adopt(
    origin: Path,
    target: Path,
    staging: Path,
    layout: Layout,
    record: ModelRecord,
    *,
    check: Callable[[Path], None],
    replacing: bool,
    move: bool,
    progress: Progress | None,
    clock: Clock,
    free: FreeBytes,
) -> Adopted:
    """Make the content of `origin` the directory `target`, by way of `staging`.

    Args:
        check: raises ModelInvalidError when a directory is not what it should be.
        replacing: allow other content to be replaced; the same content is left as it is.

    Raises:
        As `library.import_model`.
    """
    _refuse_own_place(origin, target)
    try:
        recover(target, layout, clock)
        shutil.rmtree(staging, ignore_errors=True)
        staging.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not is_archive(origin):
            files = _files(origin)
            check(origin)
            if os.path.lexists(target) and not replacing:
                return _already_there(origin, files, target, progress)
        # A move goes without staging: a kill must not leave the only copy where the next import clears up.
        staged = origin if move and _can_rename(origin, staging) else staging
        if staged is staging:
            _stage(origin, staging, check, progress, free)
        files = list_files(staged)
        if os.path.lexists(target) and not replacing:
            return _already_there(staged, files, target, progress)
        record_digests(staged, progress=progress)
        write_record(staged, record)
        # The name may have been given to another organisation's model meanwhile: its lock is another one.
        with file_lock(layout.install_lock, timeout=INSTALL_SECONDS, purpose="is installing a model", clock=clock):
            taken = os.path.lexists(target) and not replacing
            kept = None if taken else install(staged, target, layout, clock)
        if taken:
            return _already_there(staged, files, target, progress)
        if move and staged is staging:
            _delete(origin, files)
    except OSError as error:
        raise _refused(error, target, free) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Adopted(sum(files.values()), changed=True, kept=kept)


def _stage(
    origin: Path, staging: Path, check: Callable[[Path], None], progress: Progress | None, free: FreeBytes
) -> None:
    if is_archive(origin):
        unpack(origin, staging, progress=progress, free=free)
        check(staging)
    else:
        root = origin if origin.is_dir() else origin.parent
        files = _files(origin)
        if is_file(origin / RECORDED_NAME):  # made elsewhere: the copy is held to it
            files[RECORDED_NAME] = (origin / RECORDED_NAME).stat().st_size
        copy_files(root, staging, files, progress=progress, free=free)


def _refused(error: OSError, target: Path, free: FreeBytes) -> GarrisonError:
    if out_of_space(error):
        return disk_full(target.parent, 0, free(target.parent))
    return InvalidError(
        f"{error.filename or target} cannot be written: {error.strerror}",
        hint="Check the permissions of the library's directory and of what is imported.",
    )


def _refuse_own_place(origin: Path, target: Path) -> None:
    if not os.path.lexists(origin):
        raise InvalidError(f"{origin} does not exist", hint="Check the path.")
    here, there = origin.resolve(), target.resolve()
    if here == there or there in here.parents or here in there.parents:
        raise InvalidError(
            f"{origin} is already in the library, or holds it",
            hint="A directory below the models root is listed as it is: `garrison models list`.",
        )


def _files(origin: Path) -> dict[str, int]:
    if origin.is_dir():
        return list_files(origin)
    return {origin.name: origin.stat().st_size}


def _already_there(origin: Path, files: dict[str, int], target: Path, progress: Progress | None) -> Adopted:
    """Raises InvalidError unless `target` holds the same files; sizes are compared before contents."""
    there = list_files(target) if target.is_dir() else {}
    root = origin if origin.is_dir() else origin.parent
    same = files == there and hash_files(root, files, progress=progress) == (
        read_recorded(target) or hash_files(target, there, progress=progress)
    )
    if not same:
        raise InvalidError(
            f"{target} is there already, with other content",
            hint="Import it under another name (--as), or replace what is there: --replace.",
        )
    return Adopted(sum(files.values()), changed=False, kept=None)


def _can_rename(origin: Path, staging: Path) -> bool:
    """Whether `origin` is a plain directory on the library's file system. Links in it would lead elsewhere after."""
    if not origin.is_dir() or origin.is_symlink():
        return False
    if any(Path(directory, name).is_symlink() for directory, dirs, files in os.walk(origin) for name in dirs + files):
        raise InvalidError(
            f"{origin} holds links to files elsewhere, which cannot be moved",
            hint="Import it without --move: then the files are copied.",
        )
    return origin.stat().st_dev == staging.parent.stat().st_dev


def _delete(origin: Path, files: dict[str, int]) -> None:
    """What was copied, and the directories that are empty then: what was left behind (`.git`) is not ours to delete."""
    if not origin.is_dir() or origin.is_symlink():
        origin.unlink()
        return
    for name in [*files, RECORDED_NAME]:
        (origin / name).unlink(missing_ok=True)
    for directory, _, _ in os.walk(origin, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            Path(directory).rmdir()
