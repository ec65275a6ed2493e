"""A command of `garrison` in a session of its own, with its output in a log."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from garrison.base.children import SAFE_PYTHON
from garrison.base.errors import DiskFullError, InvalidError
from garrison.base.files import is_disk_full
from garrison.launch.run.failure import signal_name

__all__ = ["end", "how_it_ended", "require_room", "spawn"]

_END_SECONDS = 15.0
_KILL_SECONDS = 5.0
_MOST_LOG_BYTES = 32 * 2**20


def spawn(arguments: Sequence[str], log: Path, **variables: str) -> tuple[int, "subprocess.Popen[bytes]"]:
    """Start `garrison` with `arguments`, and return where its part of the log begins, and the process.

    Its output is appended, since another process may write there. A log of 32 MiB and more becomes `….1` first.

    Args:
        variables: of its environment, beside those of this process.

    Raises:
        InvalidError: the log cannot be opened.
    """
    with contextlib.suppress(OSError):
        if log.lstat().st_size >= _MOST_LOG_BYTES:
            log.replace(log.with_name(log.name + ".1"))
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InvalidError(
            f"the log {log} cannot be written: {error.strerror}", hint="Set GARRISON_DATA_DIR."
        ) from None
    try:
        begin = os.fstat(descriptor).st_size
        child = subprocess.Popen(
            [sys.executable, SAFE_PYTHON, "-m", "garrison.cli.main", *arguments],
            stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True,
            env={**os.environ, **variables},
        )  # fmt: skip
    finally:
        os.close(descriptor)
    return begin, child


def end(child: "subprocess.Popen[bytes]", seconds: float = _END_SECONDS) -> None:
    """End it; one that does not end in time is killed, and so is one that a second signal to this process is about.

    Raises:
        KeyboardInterrupt: that second signal.
    """
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        _kill(child)
    except KeyboardInterrupt:
        _kill(child)
        raise


def require_room(log: Path) -> None:
    """Check that the log can take more: a process that cannot write its output ends without a word.

    Raises:
        DiskFullError: it cannot.
    """
    try:
        room = os.statvfs(log.parent).f_bavail
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_disk_full(error):
            return
        room = 0
    if room == 0:
        raise DiskFullError(
            f"no space left on disk ({log}), so that it could not say why it ended",
            hint="Free some space, then run the command again.",
        )


def how_it_ended(code: int) -> str:
    """How it ended, by its return code: "ended with 1", "was killed by SIGKILL"."""
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with {code}"


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """Have it kill what it started; where it does not, kill it, and the shim of its engine stops that."""
    child.terminate()  # its second signal
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_KILL_SECONDS)
    finally:  # also at a third signal
        child.kill()
        child.wait()
