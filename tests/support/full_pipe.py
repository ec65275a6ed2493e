import contextlib
import os

__all__ = ["full_pipe"]


def full_pipe() -> tuple[int, int]:
    """Both ends of a full pipe."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    for size in (65536, 1):
        with contextlib.suppress(BlockingIOError):
            while os.write(writable, b"x" * size):
                pass
    os.set_blocking(writable, True)
    return readable, writable
