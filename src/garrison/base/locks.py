"""An advisory lock on a file that says who holds it, and survives kill -9.

`flock` where the file system has it: the kernel drops it with its holder. Where it has not (some network mounts), a
directory beside the file, made atomically, with the holder's pid and start time in it, so that a dead holder is seen.
The library filelock is not used: it takes three interpreter starts to import, and the seed's contract asks for the
symlink check and the directory fallback.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import InvalidError, LockedError

__all__ = ["FileLock", "file_lock", "start_time"]

_POLL_SECONDS = 0.1
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class FileLock:
    """A lock that is held. `descriptor` is None in the directory fallback."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self._held = True

    def release(self) -> None:
        """Let go. Calling it twice is harmless."""
        if not self._held:
            return
        self._held = False
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        else:
            shutil.rmtree(_fallback(self.path), ignore_errors=True)


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
        purpose: completes "another command …" in the error, e.g. `is resolving acme/tiny`.
        on_wait: called once with a sentence, the first time the lock is found taken.

    Raises:
        LockedError: the time is over. Details: `path`, `pid` of the holder where it is known.
        InvalidError: the path is a symlink or no regular file, or cannot be opened.
    """
    lock = _acquire(path, timeout, purpose, clock or SystemClock(), on_wait)
    try:
        yield lock
    finally:
        lock.release()


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which `pid` started; None when it is gone or `/proc` is not there."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command name, field 2, may hold spaces and parentheses: count from the last one.
    fields = content[content.rindex(b")") + 2 :].split()
    return int(fields[19])


def _acquire(path: Path, timeout: float, purpose: str, clock: Clock, on_wait: Callable[[str], None] | None) -> FileLock:
    deadline = clock.monotonic() + timeout
    descriptor = _open(path)
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
                    os.close(descriptor)
                    raise
                use_directory = True
            else:
                _write_holder(descriptor)
                return FileLock(path, descriptor)
        if use_directory and _try_directory(path):
            os.close(descriptor)
            return FileLock(path, None)
        holder = _holder_text(_fallback(path) / "pid" if use_directory else path)
        if clock.monotonic() >= deadline:
            os.close(descriptor)
            raise _locked(path, purpose, timeout, holder)
        if on_wait is not None and not announced:
            announced = True
            on_wait(f"waiting for the lock {path}" + (f", held by pid {holder}" if holder else ""))
        clock.sleep(min(_POLL_SECONDS, max(0.0, deadline - clock.monotonic())))


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        what = "is a symlink" if error.errno == errno.ELOOP else f"cannot be opened: {error.strerror}"
        raise InvalidError(f"the lock file {path} {what}", hint="Remove it, or name another lock file.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidError(f"the lock file {path} is not a regular file", hint="Remove it, or name another lock file.")
    return descriptor


def _write_holder(descriptor: int) -> None:
    """Who holds it, for the message to others. A full disk takes only that."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _holder_text(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(path.read_text(encoding="ascii").split()[0])
    return None


def _locked(path: Path, purpose: str, timeout: float, holder: int | None) -> LockedError:
    who = f"pid {holder}" if holder else "another command"
    waited = f" after waiting {timeout:g} s" if timeout else ""
    return LockedError(
        f"{who} {purpose}{waited} (lock {path})",
        hint="Wait for it to end, or end it, then run this again; a dead holder's lock is freed by itself.",
        details={"path": str(path), "pid": holder},
    )


def _fallback(path: Path) -> Path:
    return path.with_name(path.name + ".d")


def _try_directory(path: Path) -> bool:
    directory = _fallback(path)
    if not _make(directory):
        if not _is_stale(directory):
            return False
        # Only one of several waiters wins this rename; then all of them run for the place that is free.
        with contextlib.suppress(OSError):
            grave = directory.with_name(f"{directory.name}.stale.{os.getpid()}")
            directory.rename(grave)
            if not _is_stale(grave):  # somebody was quicker, and what was renamed is theirs
                grave.rename(directory)
                return False
            shutil.rmtree(grave, ignore_errors=True)
        if not _make(directory):
            return False
    (directory / "pid").write_text(f"{os.getpid()} {start_time(os.getpid())}\n", encoding="ascii")
    return True


def _make(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _is_stale(directory: Path) -> bool:
    try:
        pid_text, started = (directory / "pid").read_text(encoding="ascii").split()
        pid = int(pid_text)
    except (OSError, ValueError):
        # Between mkdir and the write of the pid there is a moment without it; a minute is no moment.
        with contextlib.suppress(OSError):
            return time.time() - directory.stat().st_mtime > 60
        return False
    return str(start_time(pid)) != started
