"""Run a program to completion, with its output in a log file: the seam between an installation and the system."""

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from garrison.base.redaction import LineRedactor, know_environment, redacted

__all__ = ["Runner", "SystemRunner"]

_TICK_SECONDS = 5.0
_GRACE_SECONDS = 10.0


class Runner(Protocol):
    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None],
        hold: int | None,
    ) -> int:
        """Run `argv`, wait for it, and return its exit status; its output is appended to `log`, without secrets.

        Args:
            on_line: called with each line, and every few seconds with an empty one while there is none.
            hold: a descriptor that the program keeps open. A lock held through it survives this process: if this
                process is killed, the next command waits for the program instead of deleting files that it uses.
        """


class SystemRunner:
    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None],
        hold: int | None,
    ) -> int:
        know_environment(env)
        with log.open("ab") as handle:
            handle.write(f"$ {redacted(' '.join(argv))}\n".encode())
            handle.flush()
            child = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=() if hold is None else (hold,),
                cwd=log.parent,
            )
            try:
                assert child.stdout is not None
                _follow(child.stdout.fileno(), handle.write, on_line)
                return child.wait()
            except BaseException:
                _end(child)
                raise
            finally:
                if child.stdout is not None:
                    child.stdout.close()


def _follow(descriptor: int, write: Callable[[bytes], object], on_line: Callable[[str], None]) -> None:
    rest, redactor = b"", LineRedactor()

    def pass_on(block: bytes) -> None:
        nonlocal rest
        write(block)
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            on_line(line.decode(errors="replace").rstrip("\r"))

    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(_TICK_SECONDS):
                on_line("")
                continue
            block = os.read(descriptor, 65536)
            if not block:
                break
            pass_on(redactor.feed(block))
    pass_on(redactor.end())
    if rest:
        on_line(rest.decode(errors="replace"))


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Stop a program that this process started: by SIGTERM, then by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    while child.poll() is None:
        if time.monotonic() >= deadline:
            child.kill()
            child.wait()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.1)
