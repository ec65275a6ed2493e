"""Atomic, durable file writes: a reader, or a process killed midway, sees either the old content or the new."""

import errno
import os
from pathlib import Path

__all__ = ["fsync_dir", "fsync_tree", "is_disk_full", "write_atomic"]

_FSYNC_THREADS = 8


def is_disk_full(error: OSError) -> bool:
    """Whether there is no space left, on the disk or within a quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_atomic(path: Path, content: bytes | str, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write a temporary file beside `path`, flush it to disk and rename it over `path`.

    The file has `mode` from its first byte on, so a secret is never readable by others for a moment.

    Args:
        durable: it is still there after a power failure. False, which takes milliseconds less, for what describes
            processes of this machine, which are gone then, too.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(data)
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_dir(path.parent)


def fsync_dir(directory: Path) -> None:
    """Make renames in `directory` durable."""
    _fsync(directory, os.O_RDONLY | os.O_DIRECTORY)


def fsync_tree(directory: Path) -> None:
    """Make everything below `directory` durable, so that renaming it is durable too. Symbolic links are skipped."""
    from concurrent.futures import ThreadPoolExecutor  # imported here: only callers that wrote a whole tree need it

    found = [(Path(parent), names) for parent, _, names in os.walk(directory)]
    files = [path for parent, names in found for name in names if not (path := parent / name).is_symlink()]
    # In parallel: a file system commits several waiting fsyncs in one journal transaction.
    with ThreadPoolExecutor(_FSYNC_THREADS) as pool:
        list(pool.map(lambda path: _fsync(path, os.O_RDONLY), files))
    for parent, _ in found:
        fsync_dir(parent)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
