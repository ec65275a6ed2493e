"""Copy files: as clones where the file system can, else byte by byte.

Never as hard links: an edit of the source in place would change the copy. No copy is more readable than its source.
"""

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from garrison.base.beneath import Tree
from garrison.base.errors import GarrisonError, InvalidError
from garrison.base.files import fsync_dir
from garrison.models.files.content import open_file, unreadable
from garrison.models.files.progress import Progress, Silent
from garrison.models.files.readability import current_umask, directory_mode, file_mode
from garrison.models.files.space import FreeBytes, disk_full, free_bytes, out_of_space, require_space
from garrison.models.files.stop_token import StopToken

__all__ = ["How", "copy_files"]

How = Literal["reflink", "copy"]
"""How files were copied: by sharing blocks with the source until one side writes, or as bytes of their own."""

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
    tree: Tree | None = None,
    umask: int | None = None,
    stop: StopToken | None = None,
) -> How:
    """Copy `files` (relative name to bytes) from one directory into another, new one, and flush them to disk.

    Nobody else can enter the new directory until it is complete.

    Args:
        tree: `source`, held open: nothing outside it is copied. None to follow links.
        umask: permissions that copies never get; that of the process by default.

    Raises:
        DiskFullError: raised before the first byte is copied, unless blocks can be shared; or while copying.
        ModelInvalidError: a file cannot be read, or is outside the tree.
        InvalidError: a copy cannot be written.
        StoppedError: `stop` was stopped. The new directory stays, incomplete and closed to others, for the caller to
            remove.
    """
    progress = progress or Silent()
    total = sum(files.values())
    allowed = ~(current_umask() if umask is None else umask)
    copier = _Copier(source, target, tree, allowed, progress, stop or StopToken())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(mode=0o700)
        # The largest first: if its blocks can be shared, no free space is needed.
        names = sorted(files, key=lambda name: -files[name])
        cloned = bool(names) and copier.clone(names[0])
        if not cloned:
            require_space(target, total, free=free)
        progress.started(len(files), total, doing="copying")
        if cloned:
            progress.advanced(files[names.pop(0)])
        all_cloned = [copier.copy(name) for name in names]
        for directory in copier.directories:
            fsync_dir(target / directory)
        copier.open_up()
    except OSError as error:
        raise _not_written(error, target, total, free) from None
    finally:
        progress.finished()
    return "reflink" if cloned and all(all_cloned) else "copy"


def _not_written(error: OSError, target: Path, total: int, free: FreeBytes) -> GarrisonError:
    if out_of_space(error):
        return disk_full(target, total, free(target))
    return InvalidError(
        f"{error.filename or target} cannot be written: {error.strerror}",
        hint="Check the permissions of the directory, and the disk.",
    )


class _Copier:
    """Copies single files. `allowed`: the permission bits that the umask leaves."""

    def __init__(
        self, source: Path, target: Path, tree: Tree | None, allowed: int, progress: Progress, stop: StopToken
    ) -> None:
        self._source = source
        self._target = target
        self._tree = tree
        self._allowed = allowed
        self._progress = progress
        self._stop = stop
        self.directories = {""}

    def clone(self, name: str) -> bool:
        """Copy one file if it can share its blocks; return whether it could."""
        return self._made(name, shared_only=True)

    def copy(self, name: str) -> bool:
        """Copy one file; return whether it shares its blocks."""
        return self._made(name, shared_only=False)

    def open_up(self) -> None:
        """Give each directory its mode, the top one last."""
        for directory in sorted(self.directories, reverse=True):
            made = self._target / directory
            source = self._open_directory(directory)
            try:
                made.chmod(directory_mode(source, made.stat().st_gid) & (self._allowed | 0o700))
            finally:
                os.close(source)

    def _made(self, name: str, *, shared_only: bool) -> bool:
        self._stop.check()
        copy = self._target / name
        for parent in list(Path(name).parents)[-2::-1]:
            self.directories.add(parent.as_posix())
            (self._target / parent).mkdir(mode=0o700, exist_ok=True)
        read = open_file(self._source / name, self._tree)
        try:
            write = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                shared = _shares(read, write)
                if not shared and shared_only:
                    copy.unlink()
                    return False
                if shared:
                    self._progress.advanced(0 if shared_only else os.fstat(read).st_size)
                else:
                    _copy_bytes(read, write, self._progress, self._stop)
                os.fchmod(write, file_mode(read, os.fstat(write).st_gid) & (self._allowed | 0o600))
                os.fsync(write)
            finally:
                os.close(write)
        finally:
            os.close(read)
        return shared

    def _open_directory(self, name: str) -> int:
        try:
            if self._tree is not None:
                return self._tree.open_directory(name)
            return os.open(self._source / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(self._source / name, error) from None


def _shares(read: int, write: int) -> bool:
    try:
        fcntl.ioctl(write, _FICLONE, read)
    except OSError:
        return False
    return True


def _copy_bytes(read: int, write: int, progress: Progress, stop: StopToken) -> None:
    """Copy as many bytes as the file has now: one that grows is not followed for ever."""
    in_kernel = True
    left = os.fstat(read).st_size
    while left:
        stop.check()
        try:
            most = min(left, _CHUNK_BYTES)
            count = os.copy_file_range(read, write, most) if in_kernel else _pass_on(read, write, most)
        except OSError as error:
            if not in_kernel or error.errno not in _NOT_HERE:
                raise
            in_kernel = False
            continue
        if not count:
            # Some virtual file systems answer 0 to copy_file_range for files that do have content.
            if not in_kernel:
                return
            in_kernel = False
            continue
        left -= count
        progress.advanced(count)


def _pass_on(read: int, write: int, most: int) -> int:
    block = os.read(read, min(most, 1024 * 1024))
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(write, rest) :]
    return len(block)
