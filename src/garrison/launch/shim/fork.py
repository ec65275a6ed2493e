"""Start the engine: fork, what must be set in between, exec. Only for a process with a single thread."""

import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

__all__ = ["become_subreaper", "fork_engine"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Orphaned descendants become children of this process."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def fork_engine(argv: Sequence[str], environment: Mapping[str, str], output: int) -> int:
    """Start `argv` in a process group of its own, to be sent SIGTERM when this process dies; its pid.

    Raises:
        OSError: it cannot be executed.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(argv, environment, output, writing, parent)
    os.close(writing)
    # The pipe closes at exec, which leaves nothing to read, or carries the errno of what failed.
    failure = os.read(reading, 16)
    os.close(reading)
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)))
    return pid


def _become(argv: Sequence[str], environment: Mapping[str, str], output: int, failure: int, parent: int) -> NoReturn:
    try:
        # Python ignores the first two, and programs expect that they are not. The third has a handler here, which must
        # not take the signal that is requested next.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the request
            os._exit(1)
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execve(argv[0], list(argv), environment)  # noqa: S606 - an argv list; no shell is involved
    except OSError as error:
        os.write(failure, str(error.errno).encode())
    finally:  # nothing may return into the copy of the parent
        os._exit(127)
