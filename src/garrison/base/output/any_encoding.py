"""Output that never fails for its encoding: an ASCII locale, or a file name whose bytes are no text."""

import codecs
import io
from typing import Any

__all__ = ["EXACT", "READABLE", "never_fail"]

READABLE = "garrison.readable"
"""Error handler of text for people: marks and lines become similar ASCII, everything else is escaped."""
EXACT = "garrison.exact"
"""Error handler of JSON: escaped as in its strings, so that the value is the same."""

_SIMILAR = {
    "✓": "+", "✗": "x", "✕": "x", "✎": "~", "↻": "%", "⊕": "+", "⊖": "-", "⊘": "#", "○": "o", "⚠": "!", "◐": "*",
    "·": "-", "•": "*", "–": "-", "—": "-", "…": "...", "→": "->", "←": "<-", "│": "|", "─": "-", "└": "`", "├": "|",
    "≠": "!=", "×": "x", "°": " deg ", "µ": "u", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def never_fail(stream: Any, errors: str) -> None:
    """Have a standard stream use the error handler `errors`, which is `READABLE` or `EXACT`."""
    for name, similar in ((READABLE, _SIMILAR), (EXACT, {})):
        codecs.register_error(name, _Handler(similar))
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=errors)


class _Handler:
    def __init__(self, similar: dict[str, str]) -> None:
        self._similar = similar

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = error.object[error.start : error.end]
        return "".join(self._similar.get(one) or _escaped(one) for one in text), error.end


def _escaped(character: str) -> str:
    """`\\u00e9`; of characters beyond the first plane both halves, as JSON has them."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
