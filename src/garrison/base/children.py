"""Keep code in the current directory out of the programs that Garrison starts.

Write access to the directory in which a command runs must not mean code execution as its user. `python -m`, `python -c`
and the workers of Python's multiprocessing look for modules there first, and an empty entry in `PATH` or
`LD_LIBRARY_PATH` stands for it. Programs that Garrison runs for itself also run in a directory that no other user can
write to; an engine keeps the user's directory, since paths in its arguments may be relative.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DIRECTORY", "SAFE_PYTHON", "child_environment", "find_program"]

DIRECTORY = "/"
"""Working directory of programs that need none in particular."""
_ASKED_FOR = {"PYTHONPATH": ":", "LD_LIBRARY_PATH": "[:;]"}  # name to the separators of its entries
SAFE_PYTHON = "-P"
"""Option of Python that keeps the current directory, and that of the script, off its module path."""


def child_environment(environ: Mapping[str, str], *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Return `environ` for a child: its search paths have only absolute entries, and Pythons below start with `-P`.

    A relative entry of `PYTHONPATH` or `LD_LIBRARY_PATH` is intended, so it is made absolute. An empty one, which an
    unset variable leaves in `$LD_LIBRARY_PATH:/more`, is not, and is dropped: it stands for the current directory.

    Args:
        without: prefixes of names to leave out.
    """
    made = (
        {name: value for name, value in environ.items() if not name.startswith(without)} if without else dict(environ)
    )
    made["PYTHONSAFEPATH"] = "1"
    if "PATH" in made:
        made["PATH"] = _absolute_entries(made["PATH"])
    for name, separators in _ASKED_FOR.items():
        if name in made:
            entries = [str(Path(entry).absolute()) for entry in re.split(separators, made.pop(name)) if entry]
            made |= {name: os.pathsep.join(entries)} if entries else {}
    return made


def find_program(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the absolute path of a program, or None. A name is looked up in the absolute entries of `PATH`; a path may
    be relative."""
    path = environ.get("PATH")
    found = shutil.which(name, path=os.defpath if path is None else _absolute_entries(path))
    return None if found is None else str(Path(found).absolute())


def _absolute_entries(path: str) -> str:
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if entry.startswith("/"))
