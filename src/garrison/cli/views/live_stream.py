"""Output that never makes its writer wait: for programs that run for long and write from an event loop.

A pipe whose reader has stopped, or a terminal on hold, blocks whoever writes to it. Here a thread does the writing.
What it cannot write is kept up to a bound; past that, lines are dropped and counted, and the count is written in their
place when the reader goes on.
"""

import contextlib
import io
import os
import threading
from collections import deque
from typing import TextIO

__all__ = ["LiveStream"]

_MOST_CHARACTERS = 1024 * 1024


class LiveStream(io.TextIOBase):
    """`stream`, written by a thread of its own.

    Args:
        stream: with a file descriptor. One without (a test's) is written to directly.
        limit: characters that wait at most.
    """

    def __init__(self, stream: TextIO, *, limit: int = _MOST_CHARACTERS) -> None:
        super().__init__()
        self._stream = stream
        self._limit = limit
        self._descriptor = _descriptor_of(stream)
        self._waiting: deque[str] = deque()
        self._size = 0
        self._unreported = 0
        self._idle = True
        self._broken: OSError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """Writes that were dropped so far."""

    @property
    def encoding(self) -> str:  # type: ignore[override] # a stream's encoding is read-only here
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Queue `text`, or drop it where too much is waiting. Returns at once.

        Raises:
            OSError: an earlier write failed: the reader is gone, or the disk is full.
        """
        if self._descriptor is None:
            return self._stream.write(text)
        with self._changed:
            if self._broken is not None:
                raise self._broken
            if self._size + len(text) > self._limit:
                self.dropped += 1
                self._unreported += 1
                return len(text)
            if self._unreported:
                text = f"({self._unreported:,} writes dropped: nobody read this output)\n{text}"
                self._unreported = 0
            self._waiting.append(text)
            self._size += len(text)
            if self._thread is None:
                # A daemon: a write that never returns must not keep the process from ending.
                self._thread = threading.Thread(target=self._work, name="output", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nothing to do: each write is on its way."""
        if self._descriptor is None:
            self._stream.flush()

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, at most `seconds`. False when something is left, which is then lost."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._broken is not None or (self._idle and not self._waiting), seconds
            )

    def _work(self) -> None:
        assert self._descriptor is not None
        while True:
            with self._changed:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting))
                self._idle = False
                text = "".join(self._waiting)
                self._waiting.clear()
                self._size = len(text)
            try:
                _write_all(self._descriptor, text.encode(self.encoding, "replace"))
            except OSError as error:
                with self._changed:
                    self._broken = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._size -= len(text)


def _write_all(descriptor: int, content: bytes) -> None:
    """By the descriptor: a thread that is stuck in the stream's own buffer would hold its lock when Python ends."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _descriptor_of(stream: TextIO) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
        return stream.fileno()
    return None
