"""Find an engine's program: the path that was given, then the environment in use, then PATH."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from garrison.base.children import find_program
from garrison.base.errors import EngineMissingError
from garrison.base.home import expanded
from garrison.engines.engine import Engine
from garrison.engines.environments import in_use

__all__ = ["Located", "locate", "require_runnable"]


@dataclass(frozen=True, slots=True)
class Located:
    """An absolute path, and its origin: `explicit`, `environment` (with its name), `path` or `garrison`."""

    path: Path
    origin: str
    environment: str | None = None


def locate(engine: Engine, *, data_dir: Path, environ: Mapping[str, str], explicit: str | None = None) -> Located:
    """The program to run for `engine`.

    Args:
        explicit: a path, or a name that is looked up on PATH.

    Raises:
        EngineMissingError: it was not found; the hint says how to install it.
    """
    if explicit is not None:
        found = _which(explicit, environ)
        if found is None:
            raise EngineMissingError(
                f"{explicit} is not a program that can be run",
                hint=f"Write ./{explicit} for the one in this directory."
                if "/" not in explicit and os.access(explicit, os.X_OK)
                else "Name an executable file, or leave the path out.",
                details={"engine": engine.name, "path": explicit},
            )
        return Located(found, "explicit")
    if engine.name == "sim":
        return Located(Path(sys.executable).absolute(), "garrison")
    chosen = in_use(data_dir, engine.name)
    if chosen is not None and os.access(chosen.executable, os.X_OK):
        return Located(chosen.executable.absolute(), "environment", chosen.name)
    found = _which(engine.executable, environ)
    if found is not None:
        return Located(found, "path")
    raise EngineMissingError(
        f"{engine.title} is not installed: there is no {engine.executable} in an engine environment or on PATH",
        hint=f"garrison engine install {engine.name}",
        details={"engine": engine.name, "executable": engine.executable},
    )


def require_runnable(path: Path) -> None:
    """Check that the system can run the program, as far as that is possible without running it.

    Raises:
        EngineMissingError: it is not executable, or the interpreter in its first line is missing.
    """
    if not os.access(path, os.X_OK):
        raise EngineMissingError(f"{path} is not executable", hint=f"chmod +x {path}, or name another program.")
    try:
        with path.open("rb") as file:
            first = file.readline(512)
    except OSError:  # a program can be executable without being readable
        return
    interpreter = first[2:].split()[:1] if first.startswith(b"#!") else []
    if interpreter and not os.access(interpreter[0], os.X_OK):
        raise EngineMissingError(
            f"{path} cannot be run: its interpreter {os.fsdecode(interpreter[0])} is missing",
            hint="Install the engine again: `garrison engine install`.",
        )


def _which(name: str, environ: Mapping[str, str]) -> Path | None:
    found = find_program(str(expanded(name)) if name.startswith("~") else name, environ)
    return Path(found) if found else None
