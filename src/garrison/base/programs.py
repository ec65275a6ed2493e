"""The output of a short program, under limits of time and size. Blocks: not for an event loop."""

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence

from garrison.base.children import DIRECTORY

__all__ = ["program_output"]

_CHUNK = 65536
_END_SECONDS = 1.0


def program_output(
    argv: Sequence[str], *, seconds: float, most_bytes: int, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a program to its end, or kill it at the limits; return its exit status and what it wrote to both outputs.

    Args:
        argv: an absolute path, and arguments.
        env: its whole environment; None for this process's.

    Raises:
        OSError: it cannot be executed.
        TimeoutError: it did not end within `seconds`.
        ValueError: it wrote more than `most_bytes`.
    """
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=DIRECTORY, env=env
    ) as child:
        assert child.stdout is not None
        try:
            output = _read(child.stdout.fileno(), deadline, most_bytes, argv[0])
            status = child.wait(max(_END_SECONDS, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{argv[0]} did not end within {seconds:g} s") from None
        finally:
            if child.poll() is None:
                child.kill()
    return status, output.decode(errors="replace")


def _read(descriptor: int, deadline: float, most_bytes: int, program: str) -> bytes:
    data = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise TimeoutError(f"{program} did not end in time")
            piece = os.read(descriptor, _CHUNK)
            if not piece:
                return bytes(data)
            data += piece
            if len(data) > most_bytes:
                raise ValueError(f"{program} wrote more than {most_bytes} bytes")
