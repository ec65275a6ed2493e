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

__all__ = ["Located", "locate"]


_PROGRAMS = {"vllm": "vllm", "llama_cpp": "llama-server", "mlx_lm": "mlx_lm.server"}


@dataclass(frozen=True, slots=True)
class Located:
    """An absolute path, and its origin: `explicit`, `environment` (with its name), `path`, `garrison`, `container`."""

    path: Path
    origin: str
    environment: str | None = None

    def remedy(self, engine: str) -> str:
        """What to do if it does not run."""
        if self.origin == "environment" and self.environment is not None:
            version, _, device = self.environment.partition("+")
            return f"garrison engine install {engine} --version {version}" + (f" --device {device}" if device else "")
        if self.origin == "path":
            return f"Install it again, or let Garrison have its own: garrison engine install {engine}"
        return "Repair it, or name another program."


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
    if chosen is not None:  # one that is broken is said to be so: another version from PATH would be a surprise
        return Located(chosen.executable.absolute(), "environment", chosen.name)
    found = _which(engine.executable, environ)
    if found is not None:
        return Located(found, "path")
    raise EngineMissingError(
        f"{engine.title} is not installed: there is no {engine.executable} in an engine environment or on PATH",
        hint=f"garrison engine install {engine.name}{_instead(engine.name, data_dir, environ)}",
        details={"engine": engine.name, "executable": engine.executable},
    )


def _instead(missing: str, data_dir: Path, environ: Mapping[str, str]) -> str:
    """What would do as well: an engine that is here, else those that need no GPU."""
    others = {name: program for name, program in _PROGRAMS.items() if name != missing}
    here = [name for name, program in others.items() if in_use(data_dir, name) is not None or _which(program, environ)]
    if here:
        return f"; or --engine {here[0]}, which is here already"
    return f"; without a GPU, --engine {' or '.join(name for name in others if name != 'vllm')} would do as well"


def _which(name: str, environ: Mapping[str, str]) -> Path | None:
    found = find_program(str(expanded(name)) if name.startswith("~") else name, environ)
    return Path(found) if found else None
