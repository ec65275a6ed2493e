"""Copies of files that do not change when their source is edited: a clone where the file system can, else bytes.

Never a hard link: an edit in place would change the copy with its source.
"""

import errno
import fcntl
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from garrison.base.errors import InvalidError
from garrison.base.files import fsync_dir
from garrison.models.content import unreadable
from garrison.models.progress import Progress, Silent
from garrison.models.space import FreeBytes, disk_full, free_bytes, out_of_space, require_space

__all__ = ["clone_file", "copy_files"]

_FICLONE = 0x40049409  # _IOW(0x94, 9, int) in linux/fs.h: share the blocks until one side writes
_CHUNK_BYTES = 32 * 1024 * 1024
_NOT_HERE = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


def copy_files(
    source: Path,
    target: Path,
    files: Mapping[str, int],
    *,
    progress: Progress | None = None,
    free: FreeBytes = free_bytes,
) -> None:
    """Copy `files` (relative name to bytes) from one directory into another, new one, and flush them to disk.

    Raises:
        DiskFullError: said before the first byte is copied, unless blocks can be shared; or while copying.
        ModelInvalidError: a file cannot be read.
        InvalidError: a copy cannot be written.
    """
    progress = progress or Silent()
    total = sum(files.values())
    try:
        target.mkdir(parents=True, mode=0o755)
        cloned = _try_clone(source, target, files)
        if cloned is None:
            require_space(target, total, free=free)
        progress.started(len(files), total, doing="copying")
        for name in files:
            if name == cloned:
                progress.advanced(files[name])
            else:
                _copy(source / name, target / name, progress)
        for directory in {(target / name).parent for name in files} | {target}:
            fsync_dir(directory)
    except OSError as error:
        if out_of_space(error):
            raise disk_full(target, total, free(target)) from None
        raise InvalidError(
            f"{error.filename or target} cannot be written: {error.strerror}",
            hint="Check the permissions of the directory, and the disk.",
        ) from None
    finally:
        progress.finished()


def clone_file(source: Path, target: Path) -> bool:
    """Make `target` a copy that shares its blocks with `source`; False where the file system cannot.

    Raises:
        ModelInvalidError: the source cannot be read.
        OSError: the target cannot be made.
    """
    with _open_source(source) as read, open(target, "xb") as write:
        try:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
        except OSError:
            target.unlink()
            return False
        os.fsync(write.fileno())
    return True


def _try_clone(source: Path, target: Path, files: Mapping[str, int]) -> str | None:
    """Clone the largest file; its name when that works here."""
    if not files:
        return None
    name = max(files, key=lambda name: files[name])
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    return name if clone_file(source / name, target / name) else None


def _copy(source: Path, target: Path, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open_source(source) as read, open(target, "xb", buffering=0) as write:
        try:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
            progress.advanced(os.fstat(read.fileno()).st_size)
        except OSError:
            _copy_bytes(read.fileno(), write.fileno(), progress)
        os.fsync(write.fileno())


def _open_source(source: Path) -> FileIO:
    try:
        return FileIO(source, "rb")
    except OSError as error:
        raise unreadable(source, error) from None


def _copy_bytes(read: int, write: int, progress: Progress) -> None:
    in_kernel = True
    while True:
        try:
            count = os.copy_file_range(read, write, _CHUNK_BYTES) if in_kernel else _pass_on(read, write)
        except OSError as error:
            if not in_kernel or error.errno not in _NOT_HERE:
                raise
            in_kernel = False
            continue
        if not count:
            # Some virtual file systems answer 0 to copy_file_range for files that do have content.
            if in_kernel and os.lseek(read, 0, os.SEEK_CUR) < os.fstat(read).st_size:
                in_kernel = False
                continue
            return
        progress.advanced(count)


def _pass_on(read: int, write: int) -> int:
    block = os.read(read, 1024 * 1024)
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(write, rest) :]
    return len(block)
