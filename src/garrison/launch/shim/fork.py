"""Starting the engine: fork, set up the child, exec. Only for a process with a single thread."""

import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

from garrison.base.procfs import has_proc

__all__ = ["become_subreaper", "fork_engine"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make this process adopt its orphaned descendants, where the system can do that."""
    if has_proc():
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def fork_engine(argv: Sequence[str], environment: Mapping[str, str], output: int) -> int:
    """Start `argv` in its own process group, on Linux with SIGTERM at the death of this process. Returns the pid.

    Raises:
        OSError: it cannot be executed.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(argv, environment, output, writing, parent)
    os.close(writing)
    # The pipe is closed by exec, or carries the errno of a failure.
    failure = os.read(reading, 16)
    os.close(reading)
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)))
    return pid


def _become(argv: Sequence[str], environment: Mapping[str, str], output: int, failure: int, parent: int) -> NoReturn:
    try:
        # Python ignores the first two, which programs do not expect. The third has a handler here, which must not
        # receive the signal requested next.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if has_proc():
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the request
            os._exit(1)
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execve(argv[0], list(argv), environment)  # noqa: S606 - an argv list; no shell is involved
    except OSError as error:
        os.write(failure, str(error.errno).encode())
    finally:  # never return into this copy of the parent
        os._exit(127)
