"""Substitutes `${NAME}`, `${NAME:-default}` and `$${` (a literal `${`) in text.

As in a shell, the default is used when the variable is unset or empty. Errors never contain the value of a variable.
"""

import re
from collections.abc import Mapping

__all__ = ["escape", "has_variable", "only_variable", "substitute"]

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PLACE = re.compile(r"\$\$\{|\$\{(?P<name>" + _NAME + r")(?::-(?P<default>[^}]*))?\}|(?P<bad>\$\{)")
_ONLY = re.compile(r"\$\{(" + _NAME + r")\}\Z")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` with its variables replaced.

    Raises:
        ValueError: a variable is not set, or a `${` does not begin a variable; the message says which.
    """

    def value(match: re.Match[str]) -> str:
        name: str | None = match["name"]
        default: str | None = match["default"]
        if match["bad"] or (default is not None and "${" in default):
            raise ValueError("invalid variable; write ${NAME} or ${NAME:-default}, not nested, or $${ for a literal ${")
        if name is None:
            return "${"
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            raise ValueError(f"variable {name} is not set")
        return environ[name]

    return _PLACE.sub(value, text)


def escape(text: str) -> str:
    """Return the text that `substitute` turns back into `text`."""
    return text.replace("${", "$${")


def only_variable(text: str) -> str | None:
    """Return `NAME` if `text` is exactly `${NAME}`, else None."""
    match = _ONLY.match(text)
    return match[1] if match else None


def has_variable(text: str) -> bool:
    """Return whether `text` contains a `${` that is not escaped."""
    return any(match[0] != "$${" for match in _PLACE.finditer(text))
