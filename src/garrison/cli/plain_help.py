"""The help of a command in the words of its user: `N` and `PATH`, not the types of the program that reads them."""

from functools import partial
from inspect import cleandoc
from typing import Any

__all__ = ["show_plain_help"]

_WORDS = {"int": "N", "float": "NUMBER"}


def show_plain_help(command: Any) -> None:
    """Have the help of a command, and of those below it, name the value that an option takes, and fill its lines."""
    for below in getattr(command, "commands", {}).values():
        show_plain_help(below)
    if command.help:
        command.help = _filled(command.help)
    params_of = command.get_params

    def plain_params(context: Any) -> list[Any]:  # with --help, which exists only here
        found: list[Any] = params_of(context)
        for param in found:
            if param.metavar is None or param.param_type_name == "argument":
                param.display_type_rich = partial(_shown, _word(param))
            param._get_number_range_help_str = lambda: None
        return found

    command.get_params = plain_params


def _shown(word: str, ctx: Any) -> str | None:
    return word or None


def _word(param: Any) -> str:
    """What stands for the value of a parameter; empty for an argument, which has a name, and for a flag."""
    kind = param.type_descriptor
    if param.param_type_name == "argument" or param.is_flag:
        return ""
    if kind.is_choice:
        return "|".join(str(getattr(one, "value", one)) for one in kind.choices or ())
    if kind.is_path:
        return "PATH"
    name = kind.ranged_type_name if kind.is_ranged else param.bare_type().removeprefix("list[").removesuffix("]")
    return _WORDS.get(name, "TEXT")


def _filled(text: str) -> str:
    """Join the lines of each paragraph, which were broken for the source; a list keeps its lines."""
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(
        one if "\n " in one or one.startswith(("-", "\b")) else " ".join(one.split("\n")) for one in paragraphs
    )
