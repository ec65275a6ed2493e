"""What the end of an engine means, as errors. Values in, values out."""

import signal
from collections.abc import Iterable
from pathlib import Path

from garrison.base.errors import EngineDiedError, GarrisonError
from garrison.engines.catalogue import Catalogue
from garrison.engines.diagnose import diagnose
from garrison.preflight.stop_notes import StopNote

__all__ = ["ended_text", "failure", "signal_name", "stopped_by_other", "unrecorded"]

_SHOWN_LOG_LINES = 25


def signal_name(number: int) -> str:
    """`SIGTERM` for 15. Of the real-time signals Python names the first and the last only; the shell's names go on:
    `SIGRTMIN+3`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first, last = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
        return f"SIGRTMIN+{number - first}" if first < number < last else f"signal {number}"


def ended_text(code: int | None, when: str, *, lost: bool = False) -> str:
    """How a main process ended, completing "vLLM …".

    Args:
        code: its exit status, negative for a signal; None when it is not known.
        when: where in its life.
        lost: the process that would have collected the status was killed.
    """
    if code is None:
        return f"lost the process that watched it {when}" if lost else "did not end after a fatal error"
    how = f"was killed by {signal_name(-code)}" if code < 0 else f"exited with {code}"
    return f"{how} {when}"


def failure(
    kind: type[GarrisonError],
    message: str,
    *,
    tail: Iterable[str],
    log_path: Path,
    catalogue: Catalogue | None,
    code: int | None = None,
) -> GarrisonError:
    """`message` with what the last lines of the log say about the cause."""
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
    """The engine was stopped by another command, which left `note`."""
    return EngineDiedError(
        f"{message} by {note}",
        hint=f"It took port {port}. Nothing is wrong with this engine or its settings.",
        details={
            "log_path": str(log_path),
            "stopped_by": {"pid": note.pid, "user": note.user, "command": note.command},
        },
    )


def unrecorded(reason: str) -> str:
    """The warning about an engine of which no record could be written."""
    return (
        f"warning: the engine is not recorded ({reason}), so another `garrison serve` or `garrison preflight` on its "
        "port may not recognise it as yours"
    )
