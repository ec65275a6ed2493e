"""`${NAME}`, `${NAME:-default}` and `$${` (a literal `${`) in text.

As in a shell, the default is taken when the variable is unset or empty. What a variable holds is in no error.
"""

import re
from collections.abc import Mapping

__all__ = ["escape", "has_variable", "only_variable", "substitute"]

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PLACE = re.compile(r"\$\$\{|\$\{(?P<name>" + _NAME + r")(?::-(?P<default>[^}]*))?\}|(?P<bad>\$\{)")
_ONLY = re.compile(r"\$\{(" + _NAME + r")\}\Z")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """
    Raises:
        ValueError: a variable is not set, or `${` begins something else; the message names it.
    """

    def value(match: re.Match[str]) -> str:
        name: str | None = match["name"]
        default: str | None = match["default"]
        if match["bad"] or (default is not None and "${" in default):
            raise ValueError("a variable is ${NAME} or ${NAME:-default}, not nested; a literal ${ is $${")
        if name is None:
            return "${"
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            raise ValueError(f"the variable {name} is not set")
        return environ[name]

    return _PLACE.sub(value, text)


def escape(text: str) -> str:
    """What `substitute` turns into `text` again."""
    return text.replace("${", "$${")


def only_variable(text: str) -> str | None:
    """`NAME` when `text` is `${NAME}` and nothing else."""
    match = _ONLY.match(text)
    return match[1] if match else None


def has_variable(text: str) -> bool:
    """Whether there is a `${` that is not escaped."""
    return any(match[0] != "$${" for match in _PLACE.finditer(text))
