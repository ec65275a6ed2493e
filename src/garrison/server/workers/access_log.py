"""The access log: one JSON object a line for each request to a model, written by a thread of the server."""

import asyncio
import os
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from garrison.base.errors import DiskFullError, GarrisonError, InvalidError
from garrison.base.logs import logger
from garrison.gateway.link.reports import FinishedValue
from garrison.net.thread_pool import ThreadPool

__all__ = ["AccessLog", "line_of"]

_MOST_WAITING = 20_000
_RETRY_SECONDS = 5.0
_NO_SPACE = (28, 122)
_encode = msgspec.json.Encoder().encode

_log = logger(__name__)


class AccessLog:
    """Appends lines to a file, which is opened for each batch, so that whatever rotates logs may move it away.

    Args:
        path: returns where the file is; None for no log.
        share: returns which part of the requests that went well is logged, from 0 to 1.
        most_bytes: returns at which size the file becomes `NAME.1`, in place of the one before.
    """

    def __init__(
        self,
        pool: ThreadPool,
        path: Callable[[], Path | None],
        share: Callable[[], float],
        most_bytes: Callable[[], int],
        draw: Callable[[], float] = random.random,  # evenness, not a secret
    ) -> None:
        self._pool, self._path, self._share, self._most_bytes, self._draw = pool, path, share, most_bytes, draw
        self._lines: list[bytes] = []
        self._in_hand: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        self.lost = 0

    def add(self, requests: Iterable[FinishedValue]) -> None:
        """Write them soon. Those that did not go well are always written."""
        if self._path() is None:
            return
        share = self._share()
        for one in requests:
            if one.outcome != "ok" or one.status >= 400 or share >= 1.0 or self._draw() < share:
                self._lines.append(line_of(one))
        if (excess := len(self._lines) - _MOST_WAITING) > 0:
            del self._lines[:excess]
            self._lose(excess)
        if self._lines and self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="access log")

    async def close(self, seconds: float) -> None:
        """Write what waits, within a limit. What is left then is lost."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=seconds)
        if self._writing is not None:
            self._writing.cancel()
            self._lose(len(self._in_hand) + len(self._lines))
            self._in_hand, self._lines = [], []

    async def _write(self) -> None:
        try:
            while self._lines:
                if (path := self._path()) is None:  # switched off meanwhile
                    self._lose(len(self._lines))
                    self._lines = []
                    return
                self._in_hand, self._lines = self._lines, []
                most = self._most_bytes()
                try:
                    await self._pool.run(_appending(path, b"".join(self._in_hand), most), "write the access log")
                except Exception as error:  # noqa: BLE001 - whatever it is, the lines are tried again, or counted
                    self._lines = self._in_hand + self._lines
                    text = error.message if isinstance(error, GarrisonError) else repr(error)
                    _log.warning("the access log cannot be written", path=path, error=text)
                    self._in_hand = []
                    await asyncio.sleep(_RETRY_SECONDS)
                self._in_hand = []
        finally:
            self._writing = None

    def _lose(self, count: int) -> None:
        if count:
            self.lost += count
            _log.error("lines of the access log are lost, because it cannot be written", lost=self.lost)


def line_of(one: FinishedValue) -> bytes:
    """Return the line of a request."""
    at = datetime.fromtimestamp(one.at, UTC).isoformat(timespec="milliseconds")
    return _encode({**msgspec.structs.asdict(one), "at": at}) + b"\n"


def _appending(path: Path, data: bytes, most: int) -> Callable[[], None]:
    return lambda: append(path, data, most)


def append(path: Path, data: bytes, most: int) -> None:
    """Append to a file, readable by its owner only. One that has become too large is moved to `NAME.1` first.

    Raises:
        DiskFullError, InvalidError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        if path.exists() and path.lstat().st_size >= most:
            path.replace(path.with_name(path.name + ".1"))
        file = os.open(path, flags, 0o600)
        try:
            _write_all(file, data)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFullError(f"no space for {path}", hint="Free some space there.") from None
        raise InvalidError(f"{path} cannot be written: {error.strerror}", hint="Check gateway_access_log.") from None


def _write_all(file: int, data: bytes) -> None:
    """Write all of it or nothing: a part that is left would be the beginning of a line that is written again."""
    begun = os.fstat(file).st_size
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError:
        written = len(data) - len(left)
        if written and os.fstat(file).st_size == begun + written:  # else somebody else writes there too
            os.ftruncate(file, begun)
        raise
