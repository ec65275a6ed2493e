"""Repair the scripts of an environment that was moved: each names the interpreter by its former path."""

import os
import re
import stat
from pathlib import Path

from garrison.base.files import write_atomic
from garrison.engines.runnable import interpreter_of

__all__ = ["relocate"]

_MOST_BYTES = 1024 * 1024
_PYTHON = re.compile(r"python[0-9.]*\Z")


def relocate(environment: Path) -> bool:
    """Let the scripts in `bin` name the interpreter beside them, where the one that they name is gone.

    Returns:
        Whether a script was changed.
    """
    changed = False
    for script in sorted((environment / "bin").glob("*")):
        if script.is_symlink() or not script.is_file() or script.stat().st_size > _MOST_BYTES:
            continue
        named = interpreter_of(script)
        if named is None or not _PYTHON.search(named) or os.path.exists(named):  # noqa: PTH110 - may be relative
            continue
        beside = environment / "bin" / Path(named).name
        if os.access(beside, os.X_OK):
            text = script.read_bytes()
            write_atomic(
                script,
                text.replace(os.fsencode(named), os.fsencode(beside.absolute()), 1),
                mode=stat.S_IMODE(script.stat().st_mode),
            )
            changed = True
    return changed
