"""The exit of an engine as an error with an explanation. Pure."""

import signal
from collections.abc import Iterable
from pathlib import Path

from garrison.base.errors import EngineDiedError, GarrisonError
from garrison.engines.catalogue import Catalogue
from garrison.engines.diagnose import diagnose
from garrison.preflight.stop_notes import StopNote

__all__ = ["ended_text", "failure", "signal_name", "stop_cause", "stopped_by_other"]

_SHOWN_LOG_LINES = 25


def signal_name(number: int) -> str:
    """`SIGTERM` for 15. Python names only the first and the last real-time signal; the others are named as in a shell:
    `SIGRTMIN+3`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first, last = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
        return f"SIGRTMIN+{number - first}" if first < number < last else f"signal {number}"


def ended_text(code: int | None, when: str, *, lost: bool = False) -> str:
    """How a main process exited, completing "vLLM …".

    Args:
        code: its exit status, negative for a signal; None when it is not known.
        when: the stage of the run, such as `before it was ready`.
        lost: the process that would have collected the status was killed.
    """
    if code is None:
        return f"lost its supervising process {when}" if lost else "did not exit after a fatal error"
    return f"{_how(code)} {when}"


def stop_cause(code: int | None, *, lost: bool, fatal: bool, given_up: bool) -> str:
    """Why what is left of an engine is stopped without a request, completing "stopping (…)". Arguments as in
    `ended_text`; `fatal`: it has said that it cannot go on; `given_up`: it was waited for in vain."""
    if code is not None:
        return f"its main process {_how(code)}"
    if lost:
        return "its supervising process was killed"
    if fatal:
        return "it reported a fatal error"
    return "it did not become ready" if given_up else "the run was cancelled"


def _how(code: int) -> str:
    return f"was killed by {signal_name(-code)}" if code < 0 else f"exited with {code}"


def failure(
    kind: type[GarrisonError],
    message: str,
    *,
    tail: Iterable[str],
    log_path: Path,
    catalogue: Catalogue | None,
    code: int | None = None,
) -> GarrisonError:
    """An error of `message` and of what the last lines of the log say about the cause."""
    lines = list(tail)
    found = diagnose(lines, code, catalogue=catalogue)
    details: dict[str, object] = {
        "returncode": code,
        "log_path": str(log_path),
        "log_tail": lines[-_SHOWN_LOG_LINES:],
    }
    if found is None:
        return kind(message, hint=f"The whole log is in {log_path}.", details=details)
    details["diagnosis"] = {"cause": found.cause, "message": found.message, "remedy": found.remedy}
    return kind(f"{message}: {found.message}", hint=found.remedy, details=details)


def stopped_by_other(note: StopNote, message: str, port: int, log_path: Path) -> GarrisonError:
    """The error of an engine that another command stopped, which left `note`."""
    return EngineDiedError(
        f"{message} by {note}",
        hint=f"That command took port {port}. Nothing is wrong with this engine or its settings.",
        details={
            "log_path": str(log_path),
            "stopped_by": {"pid": note.pid, "user": note.user, "command": note.command},
        },
    )
