"""The log of a command that runs for long: opened when `--log` or `GARRISON_LOG_FORMAT` asks for it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import cast

from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.base.redaction import know_environment
from garrison.base.settings import Settings

__all__ = ["opened_log", "shows_view"]

_log = logger(__name__)


@contextlib.contextmanager
def opened_log(values: Settings, command: str, **facts: object) -> Iterator[bool]:
    """Open the log on standard error if `values` ask for one; yield whether they do.

    Its first line names the command, the version, the process and the settings that are not defaults. An error that
    ends the command is logged last.
    """
    if values.log_format is None:
        yield False
        return
    # Imported here: structlog would cost a command that logs nothing more than its own work.
    from garrison.telemetry.log import Level, Style, log_output

    know_environment(os.environ)
    with contextlib.ExitStack() as stack:
        style, level = cast("Style", values.log_format), cast("Level", values.log_level)
        stack.enter_context(log_output(sys.stderr, style=style, level=level))
        _started(values, command, facts)
        stack.push(_ended)
        yield True


def shows_view(logged: bool) -> bool:
    """Return whether a command's view is shown beside its log: on a terminal that the log does not go to.

    Elsewhere both would end up in one place, a journal or a container's log, with everything in it twice.
    """
    if not logged:
        return True
    try:
        return sys.stdout.isatty() and not os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):  # a stream without a descriptor
        return False


def _ended(_kind: object, error: BaseException | None, _trace: object) -> None:
    if isinstance(error, GarrisonError):
        _log.error("ended with an error", code=error.code, error=error.message, details=error.details or None)
    elif isinstance(error, Exception):
        _log.error("ended with a bug", exception=error)


def _started(values: Settings, command: str, facts: dict[str, object]) -> None:
    from garrison import __version__

    secret = {row.name for row in Settings.table() if row.secret}
    chosen = {
        name: {"value": "***" if name in secret else getattr(values, name), "from": origin}
        for name, origin in values.origins.items()
    }
    about = {"program": f"garrison {command}", "version": __version__, "pid": os.getpid(), "host": os.uname().nodename}
    given = {name: one for name, one in facts.items() if one is not None}
    _log.info("started", **about, settings=chosen, **given)
