"""The seam to the downstream command: start it, hear signals, reap it."""

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Protocol, Self

from garrison.base.errors import EngineMissingError, GarrisonError, InvalidError

__all__ = ["FORWARDED", "Child", "SpawnedChild", "replace_process"]

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# The si_code of a signal from the kernel. After Ctrl-C the child, in the same foreground group, has got it too.
_SI_KERNEL = 0x80
# Python ignores these two. A command that inherited that would report EPIPE instead of ending quietly on SIGPIPE.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Child(Protocol):
    """The downstream command. It shares this process's environment and standard streams."""

    pid: int

    def wait(self, seconds: float) -> tuple[int | None, int | None]:
        """Wait up to `seconds` for the child's exit or a signal: (exit code or None, signal to pass on or None).

        The exit code is as in a shell: 128 + n when signal n ended the child.
        """

    def send(self, number: int) -> None:
        """Signal the child, unless it has ended."""


class SpawnedChild:
    """A child of this process, as a context manager: while it is open, signals are blocked and read with `wait`.

    The child's pid cannot be reused before the child is reaped here, so a plain kill() reaches the right process.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        if not hasattr(signal, "sigtimedwait"):
            raise InvalidError("this system has no sigtimedwait", hint="Set VLLM_PREFLIGHT_PROXY_CHILD=0.")
        # A signal that was ignored at the start (nohup) stays ignored, here and in the child.
        wanted = (number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN)
        self._waited = {*wanted, signal.SIGCHLD}
        self._code: int | None = None
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._waited)
        try:
            self.pid = os.posix_spawnp(
                argv[0], list(argv), os.environ, setsigmask=self._old_mask, setsigdef=_IGNORED_BY_PYTHON
            )
        except OSError as error:
            self._restore()
            raise _cannot_start(argv[0], error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def wait(self, seconds: float) -> tuple[int | None, int | None]:
        if (code := self._reap()) is not None:
            return code, None
        heard = signal.sigtimedwait(self._waited, seconds)
        if heard is not None and heard.si_signo != signal.SIGCHLD and heard.si_code != _SI_KERNEL:
            return self._reap(), heard.si_signo
        return self._reap(), None

    def send(self, number: int) -> None:
        if self._code is None:
            with contextlib.suppress(PermissionError):  # it changed its user, through sudo for example
                os.kill(self.pid, number)

    def _reap(self) -> int | None:
        if self._code is None and os.getpid() == 1:
            self._reap_orphans()
        elif self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = _shell_code(status)
        return self._code

    def _reap_orphans(self) -> None:
        """Reap every child: as pid 1 of a container this process inherits all orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == self.pid:
                self._code = _shell_code(status)
            if not pid:
                return

    def _restore(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)


def replace_process(argv: Sequence[str]) -> GarrisonError:
    """Replace this process by the command. Returns only when that failed, with the error."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - an argv list and no shell
    except OSError as error:
        return _cannot_start(argv[0], error)


def _shell_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _cannot_start(program: str, error: OSError) -> GarrisonError:
    if isinstance(error, FileNotFoundError):
        return EngineMissingError(
            f"command {program!r} not found", hint="Give its full path, or add its directory to PATH."
        )
    return InvalidError(
        f"command {program!r} cannot be run: {error.strerror}", hint="Check its mode and its first line."
    )
