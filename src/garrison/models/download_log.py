"""The log of a download: kept when the download failed, and when the user asked for it.

Records find their file by a context variable, so that downloads in one process can run side by side. The loggers get
one handler each, once, and keep it: nothing is exchanged while a download runs. A thread that works for a download must
run in a copy of its context.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from garrison.base.redaction import redacted

__all__ = ["download_log", "route_library"]

_OWN = "garrison.models.sources"


class _Redacting(logging.Formatter):
    """Libraries put headers and signed addresses into their messages."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class _LogFile:
    """The file of one download. It is created by the first record; records after `close` are dropped."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._handler = logging.FileHandler(path, mode="a", encoding="utf-8", delay=True)
        formatter = _Redacting("%(asctime)sZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self._handler.setFormatter(formatter)

    def write(self, record: logging.LogRecord) -> None:
        # A closed FileHandler opens its file again for a late record; a thread left behind by a stop may log one.
        with self._lock:
            if not self._closed:
                self._handler.handle(record)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._handler.close()


_CURRENT: ContextVar[_LogFile | None] = ContextVar("garrison_download_log", default=None)


class _Router(logging.Handler):
    """Passes a record to the file of the download that it belongs to; without one, drops it."""

    def emit(self, record: logging.LogRecord) -> None:
        if (file := _CURRENT.get()) is not None:
            file.write(record)


class _Elsewhere(logging.Filter):
    """For a library's other handlers: rejects what a download's file gets, which would disturb the progress bar."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _CURRENT.get() is None


_ROUTER, _ELSEWHERE = _Router(), _Elsewhere()


def route_library(name: str) -> None:
    """Send what the library logs in a download to that download's file. Call it after the library is imported.

    What it logs outside of a download goes where it went before. Calling it again is harmless.
    """
    logger = logging.getLogger(name)
    logger.addHandler(_ROUTER)
    for handler in logger.handlers:
        if handler is not _ROUTER:
            handler.addFilter(_ELSEWHERE)


@contextlib.contextmanager
def download_log(path: Path, *, keep: bool) -> Iterator[None]:
    """Send what the sources log in the body to `path`, and to nowhere else."""
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    own = logging.getLogger(_OWN)
    own.addHandler(_ROUTER)
    own.propagate = False
    own.setLevel(logging.INFO)
    file = _LogFile(path)
    token = _CURRENT.set(file)
    try:
        yield
    except BaseException as error:
        own.error("ended by %s: %s", type(error).__name__, error)
        raise
    else:
        if not keep:
            path.unlink(missing_ok=True)
    finally:
        _CURRENT.reset(token)
        file.close()
