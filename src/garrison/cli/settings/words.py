"""Every word that can follow a command: the commands below it, its options and their values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from garrison.cli.table import COMMANDS

__all__ = ["Node", "Word", "every_node"]


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its one-line help.

    Attributes:
        spellings: one for a command or a value; an option may have several.
        takes_value: whether a value follows.
        values: those that it can be; empty for any.
    """

    spellings: tuple[str, ...]
    help: str
    takes_value: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A command line without its options, such as `garrison models import`."""

    path: str
    words: tuple[Word, ...] = ()
    options: tuple[Word, ...] = field(default=())


def every_node() -> tuple[Node, ...]:
    """`garrison`, its commands, and those below them. Imports every command."""
    root = (Word((command.name,), command.help) for command in COMMANDS)
    nodes = [Node("garrison", tuple(root), (Word(("--help",), "Show the commands."), Word(("--version",), "Show it.")))]
    for command in COMMANDS:
        if command.name == "sim":
            nodes.append(Node("garrison sim", options=tuple(_argparse_options())))
        else:
            nodes += _nodes(f"garrison {command.name}", _click(command.module))
    return tuple(nodes)


def _click(module: str) -> Any:
    from typer.main import get_command

    return get_command(import_module(module).app)


def _nodes(path: str, command: Any) -> Iterator[Node]:
    below: dict[str, Any] = getattr(command, "commands", {})
    words = [Word((name,), _line(child.help)) for name, child in below.items() if not child.hidden]
    options = []
    for item in command.params:
        if item.param_type_name == "argument":
            words += (Word((value,), "") for value in _values(item))
        elif not item.hidden:
            names = (*item.opts, *item.secondary_opts)
            options.append(Word(names, _line(item.help), not item.is_flag, _values(item)))
    yield Node(path, tuple(words), (*options, Word(("-h", "--help"), "Show the help.")))
    for name, child in below.items():
        yield from _nodes(f"{path} {name}", child)


def _values(item: Any) -> tuple[str, ...]:
    kind = item.type_descriptor
    return tuple(str(getattr(one, "value", one)) for one in kind.choices or ()) if kind.is_choice else ()


def _argparse_options() -> Iterator[Word]:
    from garrison.sim.command import parser

    for action in parser()._actions:
        if action.option_strings:
            values = tuple(map(str, action.choices or ()))
            yield Word(tuple(action.option_strings), _line(action.help), action.nargs != 0, values)


def _line(text: str | None) -> str:
    """The first sentence of a help."""
    return " ".join((text or "").split("\n\n")[0].split()).partition(". ")[0].removesuffix(".")
