"""Log lines: standard logging with facts beside the message, and ids that are bound to the context.

    _log = logger(__name__)
    with bound(command=command.id):
        _log.info("repair began", stack=stack, actions=3)

Nothing is printed until a program opens an output (`telemetry.log`), so a room logs whether or not anybody reads it: an
unwanted line costs one comparison. A message is a constant; what differs from line to line is a fact.
"""

import contextlib
import contextvars
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

__all__ = ["ROOT", "Log", "bind", "bound", "bound_ids", "facts_of", "logger"]

if TYPE_CHECKING:
    import logging

_DEBUG, _INFO, _WARNING, _ERROR = 10, 20, 30, 40
"""The levels of `logging`, which a command that logs nothing does not import."""

ROOT = "garrison"
"""The logger above all of Garrison's own."""

_IDS: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "garrison_log_ids", default=MappingProxyType({})
)


class Log:
    """A logger that accepts facts as keyword arguments. Values are JSON-ready, or shown by `str`."""

    __slots__ = ("_logger", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: logging.Logger | None = None

    def debug(self, message: str, /, **facts: Any) -> None:
        self._write(_DEBUG, message, facts)

    def info(self, message: str, /, **facts: Any) -> None:
        self._write(_INFO, message, facts)

    def warning(self, message: str, /, **facts: Any) -> None:
        self._write(_WARNING, message, facts)

    def error(self, message: str, /, *, exception: BaseException | None = None, **facts: Any) -> None:
        """Log an error, with the traceback of `exception` if given."""
        self._write(_ERROR, message, facts, exception)

    def _write(
        self, level: int, message: str, facts: Mapping[str, Any], exception: BaseException | None = None
    ) -> None:
        wrapped = self._logger or self._wrapped()
        if wrapped is not None and wrapped.isEnabledFor(level):
            # A message is passed as an argument, so that a percent sign in it is no placeholder.
            wrapped.log(level, "%s", message, exc_info=exception, extra={"facts": facts})

    def _wrapped(self) -> "logging.Logger | None":
        """None while nothing has imported `logging`: then nobody listens, and a short command need not import it."""
        if "logging" not in sys.modules:
            return None
        import logging

        root = logging.getLogger(ROOT)
        if not root.handlers:
            # Without a handler of its own, Python would print warnings of commands that have opened no output.
            root.addHandler(logging.NullHandler())
        self._logger = logging.getLogger(self._name)
        return self._logger


def logger(name: str) -> Log:
    """Return the logger of a module; `name` is its `__name__`."""
    return Log(name)


def facts_of(record: "logging.LogRecord") -> Mapping[str, Any]:
    """Return the facts of a line; none for a line of a library."""
    facts: Mapping[str, Any] = getattr(record, "facts", {})
    return facts


def bind(**ids: Any) -> None:
    """Add ids to every later line of this context: of the current task, and of those it starts."""
    _IDS.set({**_IDS.get(), **ids})


@contextlib.contextmanager
def bound(**ids: Any) -> Iterator[None]:
    """Add ids to every line logged inside the block, also by tasks that are started there."""
    token = _IDS.set({**_IDS.get(), **ids})
    try:
        yield
    finally:
        _IDS.reset(token)


def bound_ids() -> Mapping[str, Any]:
    """Return the ids of the current context."""
    return _IDS.get()
