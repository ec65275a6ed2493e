"""The outermost call of every console script: errors become a message, a next step and an exit code."""

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from garrison.base.errors import (
    DeclinedError,
    DiskFullError,
    GarrisonError,
    InternalError,
    InvalidError,
    UsageError,
)
from garrison.base.output.any_encoding import EXACT, READABLE, never_fail
from garrison.cli.documentation import page_of_error
from garrison.cli.signals import StopSignal, stopped_as_by_ctrl_c

if TYPE_CHECKING:
    from garrison.base.settings import Settings

__all__ = ["outermost", "report", "warned"]

_WARNED: set[str] = set()
"""What has been said: some commands read their settings in several places."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (*_DISK_FULL, errno.EBADF, errno.EIO)
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def outermost(call: Callable[[], int], *, json: bool) -> int:
    """Run `call` and return its result, or the exit code of its error.

    Errors go to standard error; with `json`, also to standard output as JSON. Output that cannot be written is an
    error too.
    """
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        never_fail(stream, EXACT if json and stream is sys.stdout else READABLE)
    _WARNED.clear()
    try:
        with stopped_as_by_ctrl_c():
            code = _written(_ended(call))
    except GarrisonError as error:
        return report(error, json=json)
    except StopSignal as stopped:
        return _interrupted(f"stopped ({stopped})", 128 + stopped.number, json=json)
    except KeyboardInterrupt:
        return _interrupted("interrupted", _INTERRUPTED, json=json)
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        if error.errno in _UNWRITABLE and not error.filename and not _takes_output():
            _drop_output()
            return report(_unwritable(error), json=False)
        if error.errno not in _DISK_FULL:
            return _unexpected(error, json=json)
        where = f" ({error.filename})" if error.filename else ""
        return report(
            DiskFullError(f"no space left on disk{where}", hint="Free some space, then run the command again."),
            json=json,
        )
    except SystemExit as ended:
        # Typer and Rich turn a broken pipe into `sys.exit(1)`, which has another meaning here.
        if isinstance(ended.__context__, BrokenPipeError):
            return _reader_gone()
        raise
    except Exception as error:  # noqa: BLE001 - the only catch-all: a bug becomes a report, not a traceback
        return _unexpected(error, json=json)
    return code


def _interrupted(word: str, code: int, *, json: bool) -> int:
    if json:
        from garrison.cli.json_answer import interrupted

        print(interrupted(code))
    print(word, file=sys.stderr)
    return code


def _ended(call: Callable[[], int]) -> int:
    """Run `call` and return its result, or 0 if it ended after printing its help."""
    try:
        return call()
    except Exception as error:
        # If Typer raised, it is already imported.
        typer = sys.modules.get("typer")
        if typer is not None and isinstance(error, typer.Exit):
            return int(error.exit_code)
        if type(error).__name__ == "NoArgsIsHelpError":  # a group alone, like `garrison` alone
            return 0
        raise


def warned(settings: "Settings") -> "Settings":
    """Print the warnings of `settings`, each once in a command, and return the settings."""
    for warning in settings.warnings:
        if warning not in _WARNED:
            _WARNED.add(warning)
            print(f"warning: {warning}", file=sys.stderr)
    return settings


def _open_standard_streams() -> None:
    """Put the null device in place of each standard stream that was closed (`garrison status >&-`).

    Python then has None for the stream, and the next file that is opened gets its descriptor: what a child process
    prints would end up in that file.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null == descriptor:  # always, unless something was opened in its place before: the lowest free one is taken
            os.set_inheritable(null, True)
        stream = open(null, mode, encoding="utf-8")  # noqa: SIM115 - open for as long as the process runs
        setattr(sys, name, _Closed(stream) if name == "stdout" else stream)


class _Closed(io.TextIOBase):
    """Standard output that was closed before the start. What is written is lost, which `_written` reports."""

    encoding = "utf-8"

    def __init__(self, null: IO[str]) -> None:
        super().__init__()
        self._null = null  # keeps the descriptor open
        self.lost = False

    def write(self, text: str) -> int:
        self.lost = self.lost or bool(text)
        return len(text)

    def writable(self) -> bool:
        return True


def _written(code: int) -> int:
    """Write what standard output has buffered, and return the exit code: `code`, or that of a failed write."""
    if isinstance(sys.stdout, _Closed):
        if not sys.stdout.lost:
            return code
        failed: GarrisonError = _unwritable(OSError(errno.EBADF, "it is closed"))
    else:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _drop_output()
            failed = _unwritable(error)
        else:
            return code
    told = report(failed, json=False)
    return code or told


def _takes_output() -> bool:
    """Whether standard output can be written. What failed may have left its buffer empty, so an empty line tells."""
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def _unwritable(error: OSError) -> GarrisonError:
    """The error of a write to standard output."""
    if error.errno in _DISK_FULL:
        return DiskFullError("no space left for standard output", hint="Free some space, or send it elsewhere.")
    return InvalidError(
        f"cannot write to standard output: {(error.strerror or str(error)).lower()}",
        hint="Send it to a file, to a pipe or to /dev/null.",
    )


def _reader_gone() -> int:
    """Return the exit code for a closed pipe, as in `garrison models list | head`."""
    _drop_output()
    return _BROKEN_PIPE


def _drop_output() -> None:
    """Discard what is left for standard output: Python flushes it at exit, and would report the failure again."""
    if not isinstance(sys.stdout, _Closed):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: GarrisonError, *, json: bool) -> int:
    """Print `error`, without secrets, and return its exit code."""
    from garrison.base.redaction import know_environment, redacted, redacted_value  # most runs succeed and need none

    know_environment(os.environ)
    if json:
        import json as json_module  # imported here and below because most runs succeed and need none of it

        from garrison.cli.json_answer import SCHEMA

        print(json_module.dumps({"schema": SCHEMA} | redacted_value(error.to_json()), default=str))
    color = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    red, dim, off = ("\033[1;31m", "\033[2m", "\033[0m") if color else ("", "", "")
    label = "" if isinstance(error, DeclinedError) else f"{red}error:{off} "  # the person knows why
    print(f"{label}{redacted(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"{dim}  →{off} {redacted(error.hint)}", file=sys.stderr)
    if (page := page_of_error(error.code)) is not None:
        print(f"{dim}  Documentation: {page}{off}", file=sys.stderr)
    return int(error.exit_code)


def _unexpected(error: Exception, *, json: bool) -> int:
    # If Typer raised, it is already imported; importing it just to check would slow down every other failure.
    typer = sys.modules.get("typer")
    if typer is not None and isinstance(error, sys.modules["typer.exceptions"].TyperException):
        context = getattr(error, "ctx", None)
        hint = f"`{context.command_path if context else 'garrison COMMAND'} --help` shows the usage."
        from garrison.cli.usage_words import usage_message

        return report(UsageError(usage_message(error), hint=hint), json=json)
    path = _write_report(error)
    where = f"The report is in {path}; please send it together with the command you ran." if path else None
    return report(InternalError(f"this is a bug: {type(error).__name__}: {error}", hint=where), json=json)


def _write_report(error: Exception) -> Path | None:
    """Write the traceback to the data directory and return its path; print it if that fails."""
    import time
    import traceback

    from garrison.base.files import write_atomic
    from garrison.base.redaction import know_environment, redacted
    from garrison.base.settings import Settings

    know_environment(os.environ)
    told = redacted("".join(traceback.format_exception(error)))
    try:
        try:
            data_dir = Settings.load(os.environ, groups=("general",)).data_dir
        except GarrisonError:  # a broken config file must not cost us the report
            data_dir = Settings().data_dir
        directory = data_dir / "reports"
        path = directory / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
        directory.mkdir(parents=True, exist_ok=True)
        # No argv and no environment: either may hold a secret.
        write_atomic(path, told, mode=0o600)
    except (OSError, GarrisonError):
        print(told, end="", file=sys.stderr)
        return None
    return path
