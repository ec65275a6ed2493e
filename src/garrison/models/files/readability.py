"""The permissions of a copy: never more than those of its source and the directories above it.

A file of mode 0644 in a directory of mode 0700 is private to its owner, and so is its copy. If source and copy belong
to different groups, the copy's group gets the rights of others. Only bits for reading are copied.
"""

import contextlib
import os
from pathlib import Path

__all__ = ["current_umask", "directory_mode", "file_mode", "readers"]

_READ, _SEARCH = 4, 1
_USUAL_UMASK = 0o022


def file_mode(source: int, group: int) -> int:
    """The mode for a copy of the file behind the descriptor `source`; the copy belongs to `group`."""
    return (os.fstat(source).st_mode & 0o600) | 0o400 | readers(source, group)


def directory_mode(source: int, group: int) -> int:
    """As `file_mode`, for a directory. Its new owner always has full access."""
    return 0o700 | readers(source, group) | _classes(source, group, _SEARCH)


def readers(source: int, group: int) -> int:
    """Who besides the owner can read the file behind `source`: bits of 0o044, for `group` and for others."""
    return _classes(source, group, _READ)


def current_umask() -> int:
    """The umask of this process. It is read from /proc and not set, since other threads create files too."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return _USUAL_UMASK


def _classes(source: int, group: int, right: int) -> int:
    """`right` for the classes that have it on `source` and can reach it; none if its path is unknown."""
    granted = _granted(source, group, right)
    try:
        for parent in Path(f"/proc/self/fd/{source}").readlink().parents:
            granted &= _granted(parent, group, _SEARCH)
    except OSError:
        return 0
    return (right << 3 if granted & 0o10 else 0) | (right if granted & 0o01 else 0)


def _granted(place: int | Path, group: int, right: int) -> int:
    """0o10 if `group` has `right`, and 0o01 if others do."""
    status = place.stat() if isinstance(place, Path) else os.fstat(place)
    others = bool(status.st_mode & right)
    mine = bool(status.st_mode >> 3 & right) if status.st_gid == group else others
    if _has_acl(place):
        mine = mine and others  # the group bits are then the mask of the list
    return mine << 3 | others


def _has_acl(place: int | Path) -> bool:
    try:
        return bool(os.getxattr(place, "system.posix_acl_access"))
    except (OSError, AttributeError):
        return False
