"""How readable a copy may be: never more than its source, whose directories count too.

A file of mode 0644 in a directory of mode 0700 is its owner's alone, and so is its copy. Where source and copy belong
to different groups, the copy's group may read what everybody may. Bits that are not about reading are not copied.
"""

import contextlib
import os
from pathlib import Path

__all__ = ["current_umask", "directory_mode", "file_mode", "readers"]

_READ, _SEARCH = 4, 1
_USUAL_UMASK = 0o022


def file_mode(source: int, group: int) -> int:
    """The mode for a copy of the file that the descriptor `source` is of; the copy belongs to `group`."""
    return (os.fstat(source).st_mode & 0o600) | 0o400 | readers(source, group)


def directory_mode(source: int, group: int) -> int:
    """As `file_mode`, for a directory. Its new owner may always work in it."""
    return 0o700 | readers(source, group) | _classes(source, group, _SEARCH)


def readers(source: int, group: int) -> int:
    """Who but the owner can read what the descriptor `source` is of: bits of 0o044, for `group` and for others."""
    return _classes(source, group, _READ)


def current_umask() -> int:
    """Of this process. Read, not set: other threads create files too."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return _USUAL_UMASK


def _classes(source: int, group: int, right: int) -> int:
    """`right` for the classes that have it on `source` and can reach it; none where its path cannot be told."""
    granted = _granted(source, group, right)
    try:
        for parent in Path(f"/proc/self/fd/{source}").readlink().parents:
            granted &= _granted(parent, group, _SEARCH)
    except OSError:
        return 0
    return (right << 3 if granted & 0o10 else 0) | (right if granted & 0o01 else 0)


def _granted(place: int | Path, group: int, right: int) -> int:
    """0o10 where `group` has `right`, and 0o01 where others have."""
    status = place.stat() if isinstance(place, Path) else os.fstat(place)
    others = bool(status.st_mode & right)
    mine = bool(status.st_mode >> 3 & right) if status.st_gid == group else others
    if _has_acl(place):
        mine = mine and others  # the group bits are those of the list's mask, which says less
    return mine << 3 | others


def _has_acl(place: int | Path) -> bool:
    try:
        return bool(os.getxattr(place, "system.posix_acl_access"))
    except (OSError, AttributeError):
        return False
