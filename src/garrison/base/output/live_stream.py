"""Output that never blocks its writer, for programs that run for long and write from an event loop.

A write to a pipe whose reader has stopped, or to a terminal on hold, blocks. Here a thread writes. What it cannot write
yet is kept up to a bound; past that, writes are dropped and counted, and the count is written in their place once the
reader continues.
"""

import contextlib
import io
import os
import threading
from collections import deque
from typing import TextIO

from garrison.base.logs import logger

__all__ = ["LiveStream"]

_MOST_CHARACTERS = 1024 * 1024

_log = logger(__name__)


class LiveStream(io.TextIOBase):
    """A stream that is written by a thread of its own.

    Args:
        stream: with a file descriptor. One without, such as a test's, is written to directly.
        limit: characters that may wait.
    """

    def __init__(self, stream: TextIO, *, limit: int = _MOST_CHARACTERS) -> None:
        super().__init__()
        self._stream = stream
        self._limit = limit
        self._descriptor = _descriptor_of(stream)
        handler = getattr(stream, "errors", None) or "strict"
        self._errors = "replace" if handler == "strict" else handler
        self._waiting: deque[str] = deque()
        self._size = 0
        self._unreported = 0
        self._idle = True
        self._broken: OSError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """Number of writes that were dropped."""

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
        """Queue `text`, or drop it if too much is waiting. Returns at once.

        Raises:
            OSError: an earlier write failed because the reader is gone or the disk is full.
        """
        if self._descriptor is None:
            return self._stream.write(text)
        length = len(text)
        with self._changed:
            if self._broken is not None:
                raise self._broken
            dropped = self._size + length > self._limit
            first = dropped and not self._unreported
            if dropped:
                self.dropped += 1
                self._unreported += 1
            else:
                self._queue(text)
        if first:  # outside the lock: the log may write to a stream like this one
            self._starts_to_drop()
        return length

    def flush(self) -> None:
        """Do nothing: every write is on its way."""
        if self._descriptor is None:
            self._stream.flush()

    def drain(self, seconds: float) -> bool:
        """Wait at most `seconds` until everything is written. Return False if something is left; it is then lost."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._broken is not None or (self._idle and not self._waiting), seconds
            )

    def _notice(self, count: int) -> str:
        """The text written in the place of `count` dropped writes."""
        return f"({count:,} writes dropped: nobody read this output)\n"

    def _starts_to_drop(self) -> None:
        _log.warning("output is not read, dropping it", output=getattr(self._stream, "name", None))

    def _queue(self, text: str) -> None:
        if self._unreported:
            text = self._notice(self._unreported) + text
            self._unreported = 0
        self._waiting.append(text)
        self._size += len(text)
        if self._thread is None:
            # A daemon thread: a write that never returns must not keep the process from ending.
            self._thread = threading.Thread(target=self._work, name="output", daemon=True)
            self._thread.start()
        self._changed.notify_all()

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
                _write_all(self._descriptor, text.encode(self.encoding, self._errors))
            except OSError as error:
                with self._changed:
                    self._broken = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._size -= len(text)


def _write_all(descriptor: int, content: bytes) -> None:
    """Write to the descriptor itself: a thread that is stuck in the stream's own buffer would hold its lock at exit."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _descriptor_of(stream: TextIO) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
        return stream.fileno()
    return None
