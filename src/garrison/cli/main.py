"""The console script `garrison`."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import groupby
from typing import Any

from garrison.base.errors import UsageError
from garrison.cli.documentation import page_of, pages
from garrison.cli.table import COMMANDS, Command, find

__all__ = ["main"]

_WIDTH = max(len(command.name) for command in COMMANDS)


def main() -> int:
    """Run the command named in `sys.argv` and return its exit code."""
    from garrison.cli.outermost import outermost

    return outermost(lambda: run(sys.argv[1:]), json="--json" in _before_separator(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line, given without the program's name, and return the exit code.

    Raises:
        GarrisonError: raised by the command; `UsageError` for an unknown command.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) > 1 and (command := find(argv[1])):
            return _run_command(command, ["--help"])
        print(root_help(color=_color_wanted()))
        return 0
    if argv[0] in ("-V", "--version", "version"):
        from garrison import __version__

        print(f"garrison {__version__}")
        return 0
    command = find(argv[0])
    if command is None:
        raise _unknown(argv[0])
    return _run_command(command, list(argv[1:]))


def root_help(*, color: bool) -> str:
    """Render the help of `garrison` from the command table, without importing any command."""
    bold, dim, cyan, off = ("\033[1m", "\033[2m", "\033[36m", "\033[0m") if color else ("", "", "", "")
    lines = [
        f"{bold}garrison{off} keeps inference nodes serving exactly what was declared.",
        "",
        f"{bold}Usage:{off} garrison COMMAND [options]",
    ]
    for group, commands in groupby(COMMANDS, key=lambda command: command.group):
        lines += ["", f"{bold}{group}{off}"]
        lines += [f"  {cyan}{command.name:<{_WIDTH}}{off}  {command.help}" for command in commands]
    lines += ["", f"{dim}`garrison COMMAND --help` describes a command.{off}"]
    if (docs := pages()) is not None:
        lines += [
            f"{dim}Documentation: {docs}{off}",
            f"{dim}Exit codes:    {docs / 'reference' / 'exit-codes.md'}{off}",
        ]
    return "\n".join(lines)


def _run_command(command: Command, argv: list[str]) -> int:
    from typer.main import get_command

    # What follows `--` belongs to the engine or the downstream command. The parser never sees it, so it stays verbatim.
    own = _before_separator(argv)
    rest = argv[len(own) + 1 :]
    if rest and not command.takes_rest:
        raise UsageError(
            f"`garrison {command.name}` accepts no arguments after --: {rest[0]!r}",
            hint=f"`garrison {command.name} --help` shows the usage.",
        )
    program = get_command(import_module(command.module).app)
    helps = not {"-h", "--help"}.isdisjoint(own) or (not own and program.no_args_is_help)
    if helps:
        from garrison.cli.plain_help import show_plain_help

        show_plain_help(program)
    try:
        return _invoked(command, program, own, rest)
    finally:
        if helps and (docs := pages()) is not None:
            print(f"Documentation: {docs / page_of(command)}")


def _invoked(command: Command, program: Any, own: list[str], rest: list[str]) -> int:
    # Not `program.main`, which turns Ctrl-C into a silent exit code.
    context = program.make_context(f"garrison {command.name}", list(own), obj=tuple(rest))
    with context:
        result = program.invoke(context)
    return result if isinstance(result, int) else 0


def _before_separator(argv: Sequence[str]) -> list[str]:
    return list(argv[: argv.index("--")]) if "--" in argv else list(argv)


def _unknown(name: str) -> UsageError:
    import difflib

    if name.startswith("-"):
        others = ("--help", "--version")
        close = difflib.get_close_matches(name, others, 1)
        hint = (
            f"Did you mean `garrison {close[0]}`?" if close else f"Before a command, there are {' and '.join(others)}."
        )
        return UsageError(f"unknown option {name!r}", hint=hint)
    close = difflib.get_close_matches(name, [*(command.name for command in COMMANDS), "help", "version"], 1)
    hint = f"Did you mean `garrison {close[0]}`?" if close else "`garrison --help` lists the commands."
    return UsageError(f"unknown command {name!r}", hint=hint)


def _color_wanted() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


if __name__ == "__main__":
    sys.exit(main())
