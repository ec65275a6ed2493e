"""An advisory lock on a file that names its holder and survives kill -9.

It is a `flock` where the file system supports it: the kernel drops the lock with its holder. Elsewhere (some network
mounts) it is a directory beside the file, made atomically, with the holder's identity in it. The lock of a process that
has ended is recognised as stale on the same machine. A holder on another host cannot be judged from here, so its lock
stays until it is released or removed.

In a directory that a group shares, the lock files are shared too. Elsewhere they are private, and what another user
left in a place such as /tmp, of whatever kind, is not waited for: this user locks a file of its own beside it. Neither
user could stop the other's processes anyway, and root can open both. Root leaves nothing in a user's directory that
this user could not open: its files there are the user's.

The filelock library is not used: its import costs three interpreter starts, and the seed's contract requires the check
for symlinks and the directory fallback.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import DiskFullError, InvalidError, LockedError
from garrison.base.identity import Identity, is_gone, this_process
from garrison.base.presence import exists

__all__ = ["FileLock", "file_lock"]

_POLL_SECONDS = 0.1
_OPEN_ATTEMPTS = 10
_NOT_REGULAR = errno.ENOTSUP
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class FileLock:
    """A lock that is held.

    Attributes:
        path: the locked file; this user's own where another user's file was in the way.
        descriptor: None in the directory fallback.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self._held = True

    def release(self) -> None:
        """Release the lock. A second call has no effect."""
        if not self._held:
            return
        self._held = False
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        else:
            _remove(_fallback(self.path))


@contextlib.contextmanager
def file_lock(
    path: Path,
    *,
    timeout: float,
    purpose: str,
    clock: Clock | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[FileLock]:
    """Hold the lock on `path` for the body.

    Args:
        timeout: seconds to wait for another holder; 0 tries once.
        purpose: completes "another command …" in the error, such as `is resolving acme/tiny`.
        on_wait: called with a sentence the first time the lock is found to be held.

    Raises:
        LockedError: it is still held after `timeout`. Details: `path`, and `pid` of the holder where it is known.
        InvalidError: the path is a symlink or not a regular file, or cannot be opened or locked.
        DiskFullError: there is no room for the lock.
    """
    lock = _acquire(path, timeout, purpose, clock or SystemClock(), on_wait)
    try:
        yield lock
    finally:
        lock.release()


def _acquire(path: Path, timeout: float, purpose: str, clock: Clock, on_wait: Callable[[str], None] | None) -> FileLock:
    path, descriptor = _open(path)
    try:
        return _wait(path, descriptor, timeout, purpose, clock, on_wait)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"no space for the lock {path}", hint="Free some space there.") from None
        raise InvalidError(
            f"lock file {path} cannot be locked: {error.strerror}", hint="Choose another lock file."
        ) from None
    except BaseException:
        os.close(descriptor)
        raise


def _wait(
    path: Path, descriptor: int, timeout: float, purpose: str, clock: Clock, on_wait: Callable[[str], None] | None
) -> FileLock:
    """Raises what `clock.sleep` raises too: that is how a caller ends the wait early."""
    deadline = clock.monotonic() + timeout
    announced = False
    use_directory = False
    while True:
        if not use_directory:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                use_directory = True
            else:
                _write_holder(descriptor)
                return FileLock(path, descriptor)
        if use_directory and _try_directory(path):
            os.close(descriptor)
            return FileLock(path, None)
        holder = _directory_holder(path) if use_directory else _file_holder(path)
        if clock.monotonic() >= deadline:
            raise _locked(path, purpose, timeout, holder)
        if on_wait is not None and not announced:
            announced = True
            on_wait(f"waiting for the lock {path}" + (f", held by {holder}" if holder.pid else ""))
        clock.sleep(min(_POLL_SECONDS, max(0.0, deadline - clock.monotonic())))


def _open(path: Path) -> tuple[Path, int]:
    """Open the file to lock: (its path, descriptor)."""
    try:
        _make_directory(path.parent)
        try:
            return path, _open_regular(path)
        except OSError:
            if not _is_anothers(path):
                raise
            path = path.with_name(f"{path.name}.{os.geteuid()}")
            return path, _open_regular(path)
    except OSError as error:
        what = f"cannot be opened: {error.strerror}"
        if error.errno == errno.ELOOP:
            what = "is a symlink"
        elif error.errno == _NOT_REGULAR:
            what = "is not a regular file"
        hint = "Remove it, or choose another lock file."
        if isinstance(error, PermissionError):
            hint = f"Let this user write to {path.parent}, or choose another lock file."
        raise InvalidError(f"lock file {path} {what}", hint=hint) from None


def _make_directory(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not exists(one)]
    directory.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        with contextlib.suppress(OSError):
            descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _leave_to_owner(descriptor, made.parent)
            finally:
                os.close(descriptor)


def _leave_to_owner(descriptor: int, directory: Path) -> None:
    """Give what root has made in `directory` to the owner of that, who could not open it otherwise."""
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid == 0 and (owner := directory.stat()).st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _open_regular(path: Path) -> int:
    """Raises OSError, with `_NOT_REGULAR` for a file of another kind, and for one that a stranger keeps open to all."""
    descriptor = _open_file(path)
    found = os.fstat(descriptor)
    refused = _NOT_REGULAR if not stat.S_ISREG(found.st_mode) else 0
    if not refused and os.geteuid() not in (0, found.st_uid) and not _is_shared(path.parent):
        refused = errno.EACCES
    if refused:
        os.close(descriptor)
        raise OSError(refused, os.strerror(refused), str(path))
    return descriptor


def _open_file(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    for _ in range(_OPEN_ATTEMPTS):
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            # Without O_CREAT: in a sticky directory the kernel refuses that for another user's file, even to root.
            with contextlib.suppress(FileNotFoundError):  # it was removed between the two calls
                return os.open(path, flags)
        else:
            with contextlib.suppress(OSError):
                _leave_to_owner(descriptor, path.parent)
                os.fchmod(descriptor, _mode(path.parent))
            return descriptor
    raise FileNotFoundError(errno.ENOENT, "it keeps being removed", str(path))


def _is_shared(directory: Path) -> bool:
    """Whether a group shares the directory: setgid and group-writable."""
    shared = stat.S_ISGID | stat.S_IWGRP
    return directory.stat().st_mode & shared == shared


def _mode(directory: Path) -> int:
    """The mode of lock files in `directory`: open to the group where a group shares it."""
    return 0o660 if _is_shared(directory) else 0o600


def _is_anothers(path: Path) -> bool:
    try:
        return path.lstat().st_uid != os.geteuid()
    except OSError:
        return False


def _write_holder(descriptor: int) -> None:
    """Record the holder for other processes' messages. On a full disk only that is lost."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


@dataclass(frozen=True, slots=True)
class _Holder:
    """`host` is set where the holder cannot be judged from here."""

    pid: int | None = None
    host: str | None = None

    def __str__(self) -> str:
        if self.pid is None:
            return "another command"
        return f"pid {self.pid} on {self.host}" if self.host else f"pid {self.pid}"


def _file_holder(path: Path) -> _Holder:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _Holder(int(path.read_text(encoding="ascii").split()[0]))
    return _Holder()


def _directory_holder(path: Path) -> _Holder:
    with contextlib.suppress(OSError, ValueError):
        holder = Identity.parse((_fallback(path) / "pid").read_text(encoding="utf-8"))
        return _Holder(holder.pid, None if is_gone(holder) is not None else holder.place.host)
    return _Holder()


def _locked(path: Path, purpose: str, timeout: float, holder: _Holder) -> LockedError:
    waited = f" after waiting {timeout:g} s" if timeout else ""
    hint = "Wait for it or end it, then run this again. The lock of a process that has ended is released automatically."
    if holder.host:
        hint = (
            f"Wait for it, or end it on {holder.host}, then run this again. Whether it still runs cannot be told from "
            f"here: if it does not, remove {_fallback(path)}."
        )
    return LockedError(
        f"{holder} {purpose}{waited} (lock {path})",
        hint=hint,
        details={"path": str(path), "pid": holder.pid},
    )


def _fallback(path: Path) -> Path:
    return path.with_name(path.name + ".d")


def _remove(directory: Path) -> None:
    import shutil  # with its archive formats, it takes longer to import than a lock takes

    shutil.rmtree(directory, ignore_errors=True)


def _try_directory(path: Path) -> bool:
    directory = _fallback(path)
    if not _make(directory):
        if not _is_stale(directory):
            return False
        # Of several waiters only one succeeds with this rename; then all of them compete for the free name.
        with contextlib.suppress(OSError):
            grave = directory.with_name(f"{directory.name}.stale.{os.getpid()}")
            directory.rename(grave)
            if not _is_stale(grave):  # another waiter was faster, and this is its new lock
                grave.rename(directory)
                return False
            _remove(grave)
        if not _make(directory):
            return False
    try:
        (directory / "pid").write_text(f"{this_process()}\n", encoding="utf-8")
    except OSError:  # without its holder's name, the lock would outlive this process
        _remove(directory)
        raise
    return True


def _make(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return False
    with contextlib.suppress(OSError):
        mode = _mode(directory.parent)
        directory.chmod(mode | (mode & 0o222) >> 1)  # those who may write may also enter
    return True


def _is_stale(directory: Path) -> bool:
    """Whether its holder has ended. A holder that cannot be judged from here is taken to be alive."""
    try:
        holder = Identity.parse((directory / "pid").read_text(encoding="utf-8"))
    except PermissionError:
        return False
    except (OSError, ValueError):
        # Between mkdir and the write of the holder there is a moment without it, which does not last a minute.
        with contextlib.suppress(OSError):
            return time.time() - directory.stat().st_mtime > 60
        return False
    return is_gone(holder) is True
