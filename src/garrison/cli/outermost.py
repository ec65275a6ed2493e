"""The outermost loop of every console script: errors become a sentence, a next step and an exit code."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from garrison.base.errors import DiskFullError, GarrisonError, InternalError, UsageError

__all__ = ["outermost", "report"]

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def outermost(call: Callable[[], int], *, json: bool) -> int:
    """Run `call`; its result, or the exit code of its error. With `json` errors go to standard output too."""
    _open_closed_streams()
    try:
        code = call()
        sys.stdout.flush()
    except GarrisonError as error:
        return report(error, json=json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _unexpected(error, json=json)
        where = f" ({error.filename})" if error.filename else ""
        return report(
            DiskFullError(f"no room left on the disk{where}", hint="Free some, then run it again."), json=json
        )
    except SystemExit as ended:
        # Typer and Rich turn a broken pipe into `sys.exit(1)`, which has another meaning here.
        if isinstance(ended.__context__, BrokenPipeError):
            return _reader_gone()
        raise
    except Exception as error:  # noqa: BLE001 - the one place that catches all: a bug is reported, not thrown at people
        return _unexpected(error, json=json)
    return code


def _open_closed_streams() -> None:
    """Give a process that was started with a closed stream (`<&-`) an empty one.

    Python leaves None in its place, and the next file that is opened gets its number: children would write into it what
    they print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor == number:
                os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, "w" if number else "r", encoding="utf-8"))


def _reader_gone() -> int:
    """`garrison models list | head`. Python would complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE


def report(error: GarrisonError, *, json: bool) -> int:
    """Print `error`, without secrets, and give its exit code."""
    from garrison.base.redaction import know_environment, redacted, redacted_value  # most runs end well and need none

    know_environment(os.environ)
    if json:
        import json as json_module  # here and below: most runs end well and need none of it

        print(json_module.dumps(redacted_value(error.to_json()), default=str))
    color = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    red, dim, off = ("\033[1;31m", "\033[2m", "\033[0m") if color else ("", "", "")
    print(f"{red}error:{off} {redacted(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"{dim}  →{off} {redacted(error.hint)}", file=sys.stderr)
    return int(error.exit_code)


def _unexpected(error: Exception, *, json: bool) -> int:
    # Typer is imported by now if it raised; importing it only to ask would slow every other failure down.
    typer = sys.modules.get("typer")
    if typer is not None:
        if isinstance(error, typer.Exit):
            return int(error.exit_code)
        if isinstance(error, typer.Abort):
            return _INTERRUPTED
        if isinstance(error, sys.modules["typer.exceptions"].TyperException):
            if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
                return int(UsageError.exit_code)
            context = getattr(error, "ctx", None)
            hint = f"`{context.command_path} --help` shows the usage." if context else None
            return report(UsageError(error.format_message(), hint=hint), json=json)
    path = _write_report(error)
    where = f"The report is in {path}; please send it with the command that you ran." if path else None
    return report(InternalError(f"this is a bug: {type(error).__name__}: {error}", hint=where), json=json)


def _write_report(error: Exception) -> Path | None:
    import time
    import traceback

    from garrison.base.files import write_atomic
    from garrison.base.redaction import know_environment, redacted
    from garrison.base.settings import Settings

    try:
        directory = Settings.load(os.environ, groups=("general",)).data_dir / "reports"
    except GarrisonError:  # a broken config file is no reason to lose the report
        directory = Settings().data_dir / "reports"
    know_environment(os.environ)
    told = redacted("".join(traceback.format_exception(error)))
    path = directory / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # No argv and no environment: either may hold a secret.
        write_atomic(path, told, mode=0o600)
    except OSError:
        print(told, end="", file=sys.stderr)
        return None
    return path
