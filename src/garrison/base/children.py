"""What keeps code that lies in the current directory out of the programs that Garrison starts.

Whoever may write into the directory where a command is run must not run code as the user who runs it: `python -m`,
`python -c` and the workers that Python's multiprocessing starts look for modules there first, and an empty entry in
`PATH` or `LD_LIBRARY_PATH` makes programs or shared libraries be looked for there. Programs that Garrison runs for
itself also get a directory that nobody else can write; an engine keeps the user's, since paths in its arguments are
relative to that.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DIRECTORY", "SAFE_PYTHON", "child_environment", "find_program"]

DIRECTORY = "/"
"""Where a program runs that needs no directory of its own."""
_ASKED_FOR = {"PYTHONPATH": ":", "LD_LIBRARY_PATH": "[:;]"}  # with what separates their entries
SAFE_PYTHON = "-P"
"""For the argv of a Python: no module is taken from the current directory or from that of the script."""


def child_environment(environ: Mapping[str, str], *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """`environ` for a child: the paths in it have only absolute entries, and every Python below is safe.

    A relative entry of `PYTHONPATH` or `LD_LIBRARY_PATH` was asked for, so it is made absolute. An empty one is what a
    missing variable leaves in `$LD_LIBRARY_PATH:/more`, and is dropped: it stands for the current directory.

    Args:
        without: names that start so are left out.
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
    """The absolute path of a program. A name is looked up in the absolute entries of `PATH`; a path is the caller's own
    choice and may be relative."""
    path = environ.get("PATH")
    found = shutil.which(name, path=os.defpath if path is None else _absolute_entries(path))
    return None if found is None else str(Path(found).absolute())


def _absolute_entries(path: str) -> str:
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if entry.startswith("/"))
