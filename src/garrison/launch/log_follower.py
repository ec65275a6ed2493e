"""Reading a log that another process writes and rotates: from where it is now, or from its last lines."""

import os
from pathlib import Path

__all__ = ["LogFollower", "last_lines"]

_CHUNK = 64 * 1024
_MOST_TAIL_BYTES = 4 * 1024 * 1024


class LogFollower:
    """Follows a file by name through its rotations. Blocks on the disk, so event loops call it from threads.

    Args:
        from_end: begin with what is written from now on, instead of with the file's beginning.
    """

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._inode = -1
        if from_end and (opened := self._open()) is not None:
            os.lseek(opened, 0, os.SEEK_END)

    def read_new(self) -> bytes:
        """Return the next piece, at most 64 KiB; empty when there is nothing new."""
        current = self._descriptor if self._descriptor is not None else self._open()
        if current is None:
            return b""
        data = os.read(current, _CHUNK)
        if data or not self._has_moved():
            return data
        # The writer may have added to the old file between the read above and its rotation.
        if rest := os.read(current, _CHUNK):
            return rest
        self.close()
        fresh = self._open()
        return os.read(fresh, _CHUNK) if fresh is not None else b""

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int | None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        self._inode = os.fstat(self._descriptor).st_ino
        return self._descriptor

    def _has_moved(self) -> bool:
        try:
            return self._path.lstat().st_ino != self._inode
        except OSError:
            return False


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines of a log, out of its last 4 MiB and of the file before it. Missing files have none.

    Bytes that are not UTF-8 are replaced.
    """
    found: list[str] = []
    for name in (path, path.with_name(path.name + ".1")):
        if len(found) >= count:
            break
        found = _tail(name, count - len(found)) + found
    return found


def _tail(path: Path, count: int) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        start = max(0, size - _MOST_TAIL_BYTES)
        file.seek(start)
        data = file.read(_MOST_TAIL_BYTES)
    lines = data.decode("utf-8", "replace").splitlines()
    if start and lines:
        del lines[0]  # cut in the middle
    return lines[-count:] if count else []
