"""Free disk space, checked before it is needed."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from garrison.base.errors import DiskFullError
from garrison.base.presence import exists
from garrison.base.values import size_text

__all__ = ["FreeBytes", "disk_full", "free_bytes", "out_of_space", "require_space"]

FreeBytes = Callable[[Path], int]
"""Bytes that this user can still write below a directory; tests pass their own."""

_RESERVE_BYTES = 64 * 1024 * 1024  # for directories, the record, and other writers
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def free_bytes(directory: Path) -> int:
    """Free bytes on the file system of `directory`, or of its nearest existing parent."""
    while not exists(directory) and directory != directory.parent:
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def require_space(directory: Path, needed: int, *, free: FreeBytes = free_bytes) -> None:
    """Raise DiskFullError (details: `needed_bytes`, `reserve_bytes`,
    `free_bytes`, `path`) unless `needed` and a reserve are free."""
    available = free(directory)
    if available < needed + _RESERVE_BYTES:
        raise disk_full(directory, needed, available)


def out_of_space(error: OSError) -> bool:
    return error.errno in _NO_SPACE


def disk_full(directory: Path, needed: int, available: int) -> DiskFullError:
    return DiskFullError(
        f"{directory} has {size_text(available)} free, and {size_text(needed)} are needed besides a reserve of "
        f"{size_text(_RESERVE_BYTES)}",
        hint="Make room (`garrison models list` shows sizes, `garrison models remove` frees them), or set "
        "GARRISON_MODELS_DIR to a larger disk.",
        details={
            "needed_bytes": needed,
            "reserve_bytes": _RESERVE_BYTES,
            "free_bytes": available,
            "path": str(directory),
        },
    )
