"""What a validator says of a value, in the words of this project. Pure: it takes what pydantic reports as values."""

from collections.abc import Mapping
from typing import Any

__all__ = ["in_our_words", "what_to_write"]

_A_TEXT, _A_NUMBER, _WHOLE = "must be text", "must be a number", "must be a whole number"
_A_FLAG, _A_LIST, _A_MAPPING = "must be true or false", "must be a list", "must be a mapping"
_KINDS = {
    "string_type": _A_TEXT, "string_sub_type": _A_TEXT, "string_unicode": _A_TEXT,
    "float_type": _A_NUMBER, "float_parsing": _A_NUMBER, "finite_number": "must be a finite number",
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE, "int_parsing_size": _WHOLE,
    "bool_type": _A_FLAG, "bool_parsing": _A_FLAG,
    "list_type": _A_LIST, "tuple_type": _A_LIST, "set_type": _A_LIST, "frozen_set_type": _A_LIST,
    "iterable_type": _A_LIST,
    "dict_type": _A_MAPPING, "mapping_type": _A_MAPPING, "model_type": _A_MAPPING, "model_attributes_type": _A_MAPPING,
    "dataclass_type": _A_MAPPING,
    "none_required": "must have no value",
    "missing": "is missing", "extra_forbidden": "is not known",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_WRITE = {
    _A_TEXT: "Put it in quotes if it is text.",
    _WHOLE: "Write a whole number, without quotes.",
    _A_NUMBER: "Write a number, without quotes.",
    _A_FLAG: "Write true or false, without quotes.",
    _A_LIST: "Write a list: [one, another].",
    _A_MAPPING: "Write `name: value` lines below it.",
}


def in_our_words(kind: str, message: str, context: Mapping[str, Any] | None = None) -> str:
    """What is wrong with a value, to follow its name: "must be at least 1".

    Args:
        kind: the type of pydantic's error.
        message: its own message, which is used for errors that a validator of ours has raised.
        context: its `ctx`.
    """
    given = context or {}
    if kind in _KINDS:
        return _KINDS[kind]
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {given.get(key)}"
    if kind in ("literal_error", "enum"):
        return f"must be {given.get('expected')}"
    if kind in ("too_short", "string_too_short"):
        return _too_short(int(given.get("min_length", 1)), "characters" if kind.startswith("string") else "items")
    if kind in ("too_long", "string_too_long"):
        what = "characters" if kind.startswith("string") else "items"
        return f"has more than the {given.get('max_length', 0):,} {what} that are allowed"
    if kind == "string_pattern_mismatch":
        return f"does not have the form {given.get('pattern')}"
    said = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if said.startswith("Input should "):
        return "must " + said.removeprefix("Input should ")
    return said[:1].lower() + said[1:]


def what_to_write(kind: str) -> str | None:
    """What to write instead; None where the message already says it."""
    return _WRITE.get(_KINDS.get(kind, ""))


def _too_short(least: int, what: str) -> str:
    if least > 1:
        return f"needs at least {least:,} {what}"
    return "is empty" if what == "characters" else "is empty; it needs at least one item"
