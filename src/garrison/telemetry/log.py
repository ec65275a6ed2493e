"""The output of the log: one line per record, JSON or for people, with ids and facts, and without secrets.

    with log_output(sys.stderr, style="json", level="info"):
        ...

A JSON line has `at` (ISO 8601, UTC), `level`, `event` (the message), `logger`, then the ids bound to the context and
the facts of the record. Lines of libraries look the same, and come from WARNING up.
"""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, get_args

from garrison.base.logs import ROOT, bound_ids, facts_of
from garrison.base.output.live_stream import LiveStream
from garrison.base.output.plain_text import plain
from garrison.base.redaction import HIDDEN, is_secret_name, redacted


@contextlib.contextmanager
def _without_rich() -> Iterator[None]:
    """Have an import inside the block not find Rich, which takes most of the time that structlog takes to import. It
    is for tracebacks with the values of variables, which may be secrets, and are not shown here."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes the import fail
    try:
        yield
    finally:
        del sys.modules["rich"]


with _without_rich():
    import structlog

__all__ = ["LEVELS", "STYLES", "Level", "LogOutput", "Style", "log_output"]

Style = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]
STYLES: tuple[Style, ...] = get_args(Style)
LEVELS: tuple[Level, ...] = get_args(Level)

_DRAIN_SECONDS = 1.0
_MOST_CHARACTERS = 16 * 1024
"""Of one text in a line. A server's answer must not fill the log."""
_DEEPEST = 8
"""Levels of nested values that stay values; deeper ones become text."""
_OURS = frozenset(("at", "level", "logger"))
"""Fields whose values come from Garrison or Python alone."""


@contextlib.contextmanager
def log_output(stream: TextIO, *, style: Style, level: Level, limit: int = 1024 * 1024) -> Iterator["LogOutput"]:
    """Log to `stream` inside the block. No call blocks: lines that nobody reads are dropped and counted.

    Args:
        level: the least level of lines. Those of libraries begin at WARNING even if it is lower.
        limit: characters that may wait for a slow reader.
    """
    output = LogOutput(stream, style=style, level=level, limit=limit)
    try:
        yield output
    finally:
        output.close()


class LogOutput:
    """An open output. Opened on creation; `close` ends it and restores the loggers."""

    def __init__(self, stream: TextIO, *, style: Style, level: Level, limit: int = 1024 * 1024) -> None:
        formatter = _formatter(style, colors=stream.isatty())
        self._stream = _LogStream(stream, formatter, limit=limit)
        self._handler = _Handler(self._stream)
        self._handler.setFormatter(formatter)
        self._handler.setLevel(level.upper())
        self._own = logging.getLogger(ROOT)
        self._former_level = self._own.level
        self._own.setLevel(level.upper())
        logging.getLogger().addHandler(self._handler)
        # Python writes warnings to stderr itself, which blocks where nobody reads it.
        logging.captureWarnings(True)

    @property
    def dropped(self) -> int:
        """Lines that were dropped so far."""
        return self._stream.dropped

    def close(self, seconds: float = _DRAIN_SECONDS) -> None:
        """Write what is waiting, for at most `seconds`, and log no more. Harmless when repeated."""
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(self._handler)
        self._own.setLevel(self._former_level)
        self._stream.drain(seconds)


class _Handler(logging.Handler):
    def __init__(self, stream: LiveStream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - as in logging itself: a line that cannot be shown ends no program
            name = type(error).__name__
            line = self.format(_warning("a log line could not be formatted", source=record.name, error=name))
        # Neither does a log that cannot be written: the reader is gone, or the disk is full.
        with contextlib.suppress(OSError):
            self._stream.write(line + "\n")


class _LogStream(LiveStream):
    """Says in a line of the log, not in one of text, how many lines were dropped."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter, *, limit: int) -> None:
        super().__init__(stream, limit=limit)
        self._formatter = formatter

    def _notice(self, count: int) -> str:
        return self._formatter.format(_warning("log lines dropped: nobody read them", lines=count)) + "\n"

    def _starts_to_drop(self) -> None:
        """Nobody would read that either."""


def _warning(message: str, **facts: Any) -> logging.LogRecord:
    record = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING, "msg": message, "facts": facts}
    return logging.makeLogRecord(record)


def _formatter(style: Style, *, colors: bool) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_entry, structlog.processors.format_exc_info],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _cleaned, _renderer(style, colors)],
    )


def _renderer(style: Style, colors: bool) -> Any:
    if style == "json":
        return structlog.processors.JSONRenderer(_json)
    return structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )


def _json(line: Mapping[str, Any], **_: Any) -> str:
    return json.dumps(line, ensure_ascii=False)


def _entry(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Lay out the record: what every line has comes first, and no id or fact takes its place."""
    record: logging.LogRecord = line["_record"]
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    head = {
        "at": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": line["event"],
        "logger": record.name,
    }
    return (
        head
        | {name: one for name, one in (*bound_ids().items(), *facts_of(record).items()) if name not in head}
        | {name: line[name] for name in ("_record", "_from_structlog", "exc_info") if name in line}
    )


def _cleaned(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    trace = line.pop("exception", None)
    cleaned = {name: one if name in _OURS else _field(name, one, 0) for name, one in line.items()}
    if trace is not None:
        cleaned["exception"] = "\n".join(_text(one) for one in trace.split("\n"))
    return cleaned


def _field(name: str, value: Any, depth: int) -> Any:
    return HIDDEN if value is not None and is_secret_name(name) else _clean(value, depth)


def _clean(value: Any, depth: int) -> Any:
    """Make a value JSON-ready, redact it and make control characters visible."""
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {_text(str(name)): _field(str(name), one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        return [_clean(one, depth + 1) for one in value]
    return _text(str(value))


def _text(text: str) -> str:
    shown = plain(redacted(text[: 2 * _MOST_CHARACTERS]))
    return shown if len(shown) <= _MOST_CHARACTERS else shown[:_MOST_CHARACTERS] + "…"
