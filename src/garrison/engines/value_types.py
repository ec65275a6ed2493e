"""Values that an engine's parser cannot read as the type of their option. Pure; a value of JSON is not shown."""

import json
import re
from collections.abc import Callable
from typing import Any

from garrison.engines.catalogue import Catalogue, Option

__all__ = ["takes_whole_number", "unreadable"]

_NOTHING = ("", "None")
_SIZE = re.compile(r"\s*(?:[-+]?\d+(?:\.\d+)?[kKmMgGtT]|(?i:auto))\s*")
_OF_A_SIZE = "human-readable integers"
"""In the help of options that take `32k`."""


def unreadable(catalogue: Catalogue, option: Option, value: str) -> tuple[str, str] | None:
    """The level of the finding, and what the option takes instead of `value`; None if nothing is wrong with it.

    Of llama-server only JSON is judged: it reads the number at the beginning of a word, whatever follows.
    """
    if value in _NOTHING:
        return None
    if option.type == "json":
        return _no_json(catalogue, value)
    if catalogue.engine == "llama_cpp":
        return None
    size = _is_size(option)
    if size and _SIZE.fullmatch(value):
        return None
    # An integer may stand for a number in a catalogue, whose types are those of the defaults.
    if (size and not _reads(int, value)) or (option.type in ("integer", "number") and not _reads(float, value)):
        what = "a number" if option.type == "number" else "a whole number, such as 32k" if size else "a whole number"
        return "error", f"takes {what}, not {value!r}"
    return None


def takes_whole_number(option: Option) -> bool:
    """Whether the engine's parser refuses `10000.0`."""
    return option.type == "integer" or _is_size(option)


def _is_size(option: Option) -> bool:
    return _OF_A_SIZE in option.help


def _no_json(catalogue: Catalogue, value: str) -> tuple[str, str] | None:
    if _reads(json.loads, value):
        return None
    if value.lstrip().startswith(("{", "[")):
        return (
            "error",
            "takes JSON, and its value is none: put single quotes around it, or a shell takes the double ones",
        )
    # Some options take a plain text as well, which no catalogue tells.
    return None if catalogue.engine == "llama_cpp" else ("warning", f"takes JSON; {_example(value)}")


def _example(value: str) -> str:
    """What was probably meant by `image=5`, `*` or a word, where no part of it can be a secret."""
    key, equals, of = value.partition("=")
    if equals and re.fullmatch(r"\w{1,40}", key) and re.fullmatch(r"\d{1,9}|true|false", of):
        return f"write '{json.dumps({key: json.loads(of)})}'"
    return "write '[\"*\"]'" if value == "*" else "an object is written '{\"key\": 1}', a list '[\"a\"]'"


def _reads(parse: Callable[[str], Any], value: str) -> bool:
    try:
        parse(value)
    except (ValueError, RecursionError):
        return False
    return True
