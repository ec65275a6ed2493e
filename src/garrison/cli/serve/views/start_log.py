"""A start in the log: the view and the progress of `garrison serve` when a log was asked for."""

from typing import Any, Self

from garrison.base.logs import logger
from garrison.cli.serve.views.call_line import address_line
from garrison.engines.argv import Endpoint

__all__ = ["LogProgress", "LogView"]

_log = logger("garrison.serve")
_engine = logger("garrison.engine")


class LogView:
    """`StartView` that logs.

    Args:
        logs: log the engine's own output too.
    """

    def __init__(self, *, logs: bool) -> None:
        self.logs = logs

    def note(self, text: str) -> None:
        _log.info(text)

    def starting(self, *, seconds: float, memory_bytes: int) -> None:
        """A log has a line for each phase."""

    def phase(self, name: str, *, seconds: float, memory_bytes: int) -> None:
        _log.info("phase", phase=name, seconds=round(seconds, 1), memory_bytes=memory_bytes)

    def line(self, text: str) -> None:
        if self.logs:
            _engine.info(text)

    def ready(self, *, seconds: float, memory_bytes: int) -> None:
        _log.info("ready", seconds=round(seconds, 1), memory_bytes=memory_bytes)

    def running(self, why: str, *, seconds: float, memory_bytes: int) -> None:
        _log.info("running", seconds=round(seconds, 1), memory_bytes=memory_bytes, reason=why)

    def reached(self, endpoint: Endpoint) -> None:
        if (line := address_line(endpoint)) is not None:
            _log.info(line)

    def stopping(self, reason: str) -> None:
        _log.info("stopping", reason=reason)

    def stopped(self, *, seconds: float) -> None:
        _log.info("stopped", seconds=round(seconds, 1), processes_left=0)

    def end(self) -> None:
        """Every line is complete already."""


class LogProgress:
    """`Progress` that logs the beginning and the end of a transfer, and the sentences of its steps."""

    def __init__(self) -> None:
        self._doing: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Every line is complete already."""

    def step(self, name: str, **facts: Any) -> None:
        if message := facts.get("message"):
            _log.info(message, step=name)

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        self._doing = doing
        _log.info(f"{doing} started", files=files, bytes=total, bytes_done=done)

    def advanced(self, count: int) -> None:
        """Not logged: a log has no use for every megabyte."""

    def finished(self) -> None:
        if self._doing is not None:
            _log.info(f"{self._doing} ended")
            self._doing = None
