"""Writing files so that a reader, or a kill -9, sees the old content or the new and nothing between."""

import os
import secrets
from pathlib import Path

__all__ = ["fsync_dir", "fsync_tree", "write_atomic"]

_FSYNC_THREADS = 8


def write_atomic(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Write beside `path`, flush to disk, rename over it. The file has `mode` from its first byte on."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def fsync_dir(directory: Path) -> None:
    """Make renames in `directory` durable."""
    _fsync(directory, os.O_RDONLY | os.O_DIRECTORY)


def fsync_tree(directory: Path) -> None:
    """Make everything below `directory` durable, so that a rename of it can be. Links are left alone."""
    from concurrent.futures import ThreadPoolExecutor  # only who has just written much comes here

    found = [(Path(parent), names) for parent, _, names in os.walk(directory)]
    files = [path for parent, names in found for name in names if not (path := parent / name).is_symlink()]
    # Together, since a file system writes what waits for several of them in one go.
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
