"""Whether an engine's program can run. One in an environment that was moved, or whose Python was upgraded, still looks
whole; so does a script whose first line was spoiled."""

import os
import re
import subprocess
from pathlib import Path, PurePosixPath

from garrison.base.children import DIRECTORY, SAFE_PYTHON, child_environment
from garrison.base.errors import EngineMissingError
from garrison.base.presence import is_file, is_missing

__all__ = ["interpreter_of", "problem_of", "require_runnable"]

_HEAD_BYTES = 4096
_RUN_SECONDS = 30
_NATIVE = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_TRAMPOLINE = re.compile(rb"""\A#!/bin/sh\n(?:'''|\x22\x22\x22)?exec'? ['\x22]?(/[^'\x22\n]+?)['\x22]? ['\x22]?\$0""")
"""What installers write where the path of the interpreter is too long for the first line, or has a blank."""
_IMPORT = re.compile(rb"^(?:from|import) (?!sys\b|re\b|os\b|importlib\b)(\w+)", re.MULTILINE)
_FIND = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


def require_runnable(path: Path, *, remedy: str) -> None:
    """Check that the system can run the program, as far as that is possible without running it.

    Args:
        remedy: the command that installs a working one.

    Raises:
        EngineMissingError: it is missing or not executable, or its interpreter is missing.
    """
    problem = _without_running(path)
    if problem is not None:
        raise EngineMissingError(f"{path} {problem}", hint=remedy, details={"path": str(path)})


def problem_of(path: Path) -> str | None:
    """Why the program cannot run, completing "PATH …"; None if it seems to. Takes a second, and runs as little of it as
    tells: of a Python program its interpreter alone, of a native one its `--version`."""
    if (problem := _without_running(path)) is not None:
        return problem
    head = _head(path)
    interpreter = interpreter_of(path)
    if interpreter is not None and PurePosixPath(interpreter).name.startswith("python"):
        package = _IMPORT.search(head)
        if package is None:
            return None
        name = package[1].decode("ascii", "replace")
        ended = _run([interpreter, SAFE_PYTHON, "-c", _FIND, name])
        return None if ended is None else f"does not find its package {name} with {interpreter}: {ended}"
    if head.startswith(_NATIVE):
        ended = _run([str(path.absolute()), "--version"])
        return None if ended is None else f"does not run: {ended}"
    return None


def interpreter_of(path: Path) -> str | None:
    """The interpreter that a script names in its first line; None for a native program, and one that cannot be read."""
    head = _head(path)
    if found := _TRAMPOLINE.match(head):
        return os.fsdecode(found[1])
    words = head.split(b"\n", 1)[0][2:].split(b" ") if head.startswith(b"#!") else []
    return next((os.fsdecode(word) for word in words if word), None)


def _without_running(path: Path) -> str | None:
    if is_missing(path):
        target = path.readlink() if path.is_symlink() else None
        return "does not exist" if target is None else f"leads to {target}, which does not exist"
    if not is_file(path) or not os.access(path, os.X_OK):
        return "is not executable"
    head = _head(path)
    interpreter = interpreter_of(path)
    if interpreter is not None and not (os.path.isfile(interpreter) and os.access(interpreter, os.X_OK)):  # noqa: PTH113 - may be relative
        shown = interpreter if interpreter.isprintable() else repr(interpreter)
        return f"cannot be run: its interpreter {shown} is missing"
    if interpreter is None and head and b"\0" not in head:
        return "cannot be run: it is a text without an interpreter in its first line"
    return None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:  # a program can be executable without being readable
        return b""


def _run(argv: list[str]) -> str | None:
    """How a short program failed, in words; None if it did not."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=_RUN_SECONDS,
            check=False,
            env=child_environment(os.environ),
            cwd=DIRECTORY,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {_RUN_SECONDS} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else f"it ended with {done.returncode}"
