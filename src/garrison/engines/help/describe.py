"""Make an option catalogue from an engine's own `--help`."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from garrison.base.children import DIRECTORY, child_environment
from garrison.base.errors import EngineMissingError, InvalidError
from garrison.engines.catalogue import Catalogue, Option
from garrison.engines.engine import Engine
from garrison.engines.help.argparse_help import parse_argparse
from garrison.engines.help.llama_server import parse_llama_server

__all__ = ["HELP_ARGUMENTS", "catalogue_from_help", "describe"]

HELP_ARGUMENTS = {
    "vllm": ("serve", "--help=all"),
    "llama_cpp": ("--help",),
    "mlx_lm": ("--help",),
}
_PARSERS: dict[str, Callable[[str], list[Option]]] = {
    "vllm": parse_argparse,
    "llama_cpp": parse_llama_server,
    "mlx_lm": parse_argparse,
}
_HELP_SECONDS = 300
_HELP_CHARACTERS = 4 * 1024 * 1024
_LINE_CHARACTERS = 8000


def describe(engine: Engine, executable: Path) -> Catalogue:
    """Run `executable` for its help, and parse that. vLLM takes about 20 s to print it.

    Raises:
        InvalidError: the engine has no help that can be parsed.
        EngineMissingError: the program cannot be run. Details: `output`.
    """
    if engine.name not in HELP_ARGUMENTS:
        raise InvalidError(f"{engine.title} has no catalogue", hint="Its options are in `garrison sim --help`.")
    # argparse wraps at COLUMNS, and breaks words at hyphens when it does.
    environ = child_environment(os.environ) | {"COLUMNS": "100000", "NO_COLOR": "1"}
    argv = [str(executable.absolute()), *HELP_ARGUMENTS[engine.name]]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_HELP_SECONDS,
            check=False,
            env=environ,
            cwd=DIRECTORY,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineMissingError(f"{executable} cannot be run: {error}", hint=_hint(engine)) from None
    if done.returncode != 0:
        tail = done.stderr.strip().splitlines()[-5:]
        raise EngineMissingError(
            f"{' '.join(argv)} ended with {done.returncode}", hint=_hint(engine), details={"output": tail}
        )
    return catalogue_from_help(engine.name, engine.version(executable), done.stdout)


def catalogue_from_help(engine: str, version: str, text: str) -> Catalogue:
    """Parse a help text.

    Raises:
        InvalidError: it has no options.
    """
    options = _PARSERS[engine]("\n".join(line[:_LINE_CHARACTERS] for line in text[:_HELP_CHARACTERS].splitlines()))
    if not options:
        raise InvalidError(
            f"the help of {engine} {version} lists no options that Garrison can read",
            hint="Serving does not need a catalogue: arguments are passed on unchanged.",
        )
    return Catalogue(engine, version.split("+")[0], tuple(options))


def _hint(engine: Engine) -> str:
    return f"`garrison engine install {engine.name}` installs one that works."
