"""Which names and paths that a server lists a manifest can hold. Pure.

A server takes names that the loader refuses: with a line feed, with white space, or too long to be a key.
"""

import re
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from garrison.base.invalid_values import in_our_words
from garrison.fleet.manifest.fields import Name, Text

__all__ = ["LONGEST_NAME", "unwritable", "unwritable_name"]

LONGEST_NAME = 200
"""In characters: of a stack, a target, a label and a `lora_name`."""


def unwritable(name: str, path: str, base: str | None) -> str | None:
    """Return why no manifest can declare an adapter as it is served; None if one can.

    Args:
        name: its `lora_name`.
        path: its `lora_path`.
        base: its `base_model_name`.
    """
    if why := unwritable_name(name):
        return f"its name {why}"
    if re.search(r"\s", name):
        return "its name contains white space"
    if why := _refused(Text, path):
        return f"its path {why}"
    if path.startswith(("./", "../")) or path in (".", ".."):
        return "its path is relative, and a manifest would read it from its own directory"
    if base is not None and (why := _refused(Text, base)):
        return f"the name of its base model {why}"
    return None


def unwritable_name(name: str) -> str | None:
    """Return why a manifest refuses `name` as the name of a stack, a target or an adapter; None if it takes it."""
    return _refused(Name, name)


def _refused(kind: Any, value: str) -> str | None:
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        one = error.errors(include_url=False, include_input=False)[0]
        if one["type"] == "string_too_long":
            return f"has {len(value):,} characters, and {one['ctx']['max_length']:,} are allowed"
        if one["type"] == "string_too_short":
            return "is empty"
        return in_our_words(one["type"], one["msg"], one.get("ctx"))
    return None


@cache
def _adapter(kind: Any) -> TypeAdapter[str]:
    return TypeAdapter(kind)
