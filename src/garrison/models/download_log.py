"""The log of a download: kept when it failed, and when that was asked for."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from garrison.base.redaction import redacted

__all__ = ["download_log"]


class _Redacting(logging.Formatter):
    """Libraries put headers and signed addresses into their messages."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


_LOGGERS = ("garrison.models.sources", "huggingface_hub")


@contextlib.contextmanager
def download_log(path: Path, *, keep: bool) -> Iterator[None]:
    """Send what the sources and huggingface_hub log to `path`, and to nowhere else, while the body runs."""
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8", delay=True)
    formatter = _Redacting("%(asctime)sZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    before = {name: _redirect(logging.getLogger(name), handler) for name in _LOGGERS}
    try:
        yield
    except BaseException as error:
        logging.getLogger(_LOGGERS[0]).error("ended by %s: %s", type(error).__name__, error)
        raise
    else:
        if not keep:
            path.unlink(missing_ok=True)
    finally:
        for name, (handlers, propagate, level) in before.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()


def _redirect(logger: logging.Logger, handler: logging.Handler) -> tuple[list[logging.Handler], bool, int]:
    before = (logger.handlers, logger.propagate, logger.level)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    return before
