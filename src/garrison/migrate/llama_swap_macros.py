"""llama-swap's macros: `${name}` in the strings of a config, `${env.NAME}`, `${PORT}` and `${MODEL_ID}`."""

import json
import re
from collections.abc import Mapping
from typing import Any

from garrison.fleet.manifest.variables import escape

__all__ = ["Macros", "marked", "reference", "unmarked"]

_PLACE = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
_MOST_STEPS = 100
_MOST_CHARACTERS = 256 * 1024
_OPEN, _CLOSE = "\ue000", "\ue001"
"""Around the name of a variable while a command is parsed: `$` has a meaning there, these private characters do not."""
_MARK = re.compile(f"{_OPEN}([A-Za-z0-9_]+){_CLOSE}")


class Macros:
    """The macros that hold for one model; those of the model override those of the config."""

    def __init__(self, *levels: Mapping[str, Any], model: str = "") -> None:
        self._known: dict[str, Any] = {"MODEL_ID": model}
        for level in levels:
            self._known |= level
        self.unknown: set[str] = set()

    def expand(self, text: str) -> str:
        """Return `text` with its macros replaced, as often as macros contain macros. `${PORT}` stays, and what it does
        not know. Variables are marked; see `unmarked`."""
        for _ in range(_MOST_STEPS):
            made = _PLACE.sub(self._value, text)
            if made == text or len(made) > _MOST_CHARACTERS:
                break
            text = made
        return text

    def value(self, text: str) -> Any:
        """Return a value with its macros replaced: one that is a macro and nothing else has the macro's type."""
        found = _PLACE.fullmatch(text)
        if found is not None and not isinstance(known := self._known.get(found[1], ""), str):
            return known
        return self.expand(text)

    def _value(self, match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("env."):
            return reference(name.removeprefix("env."))
        if name in self._known:
            value = self._known[name]
            return value if isinstance(value, str) else json.dumps(value)
        if name not in ("PORT", "PID"):
            self.unknown.add(name)
        return match[0]


def reference(variable: str) -> str:
    """Return a mark that stands for a variable."""
    return f"{_OPEN}{variable}{_CLOSE}"


def marked(text: str) -> str | None:
    """Return the variable if `text` is one marked variable and nothing else, else None."""
    found = _MARK.fullmatch(text)
    return found[1] if found else None


def unmarked(value: Any) -> Any:
    """Return a value with the marks turned into a manifest's `${NAME}`; any other `${` is literal."""
    if isinstance(value, str):
        return _MARK.sub(r"${\1}", escape(value))
    if isinstance(value, Mapping):
        return {key: unmarked(one) for key, one in value.items()}
    return [unmarked(one) for one in value] if isinstance(value, list | tuple) else value
