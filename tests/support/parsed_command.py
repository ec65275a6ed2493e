"""A command line of `garrison`, parsed and not run."""

from importlib import import_module
from typing import Any

from typer.main import get_command

from garrison.cli.table import find

__all__ = ["parse_command"]


def parse_command(name: str, argv: list[str]) -> None:
    """Parse a command line. Raises what the command raises for one that it does not understand."""
    command = find(name)
    assert command is not None, f"there is no command {name!r}"
    _parse(get_command(import_module(command.module).app), name, argv)


def _parse(program: Any, name: str, argv: list[str]) -> None:
    context = program.make_context(name, argv)
    left = [*context._protected_args, *context.args]
    if getattr(program, "commands", None) and left:
        below, command, rest = program.resolve_command(context, left)
        assert command is not None
        _parse(command, f"{name} {below}", rest)
