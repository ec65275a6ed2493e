"""Reads Ollama's Modelfiles: `FROM`, `PARAMETER`, `TEMPLATE`, `SYSTEM`, `ADAPTER`, `LICENSE`, `MESSAGE`. No I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from garrison.base.errors import InvalidError

__all__ = ["Modelfile", "is_modelfile", "parse_modelfile"]

_COMMAND = re.compile(
    r"(FROM|PARAMETER|TEMPLATE|SYSTEM|ADAPTER|LICENSE|MESSAGE|RENDERER|PARSER|REQUIRES)\s+(.*)", re.IGNORECASE
)
_FROM = re.compile(r"^\s*FROM\s+\S", re.IGNORECASE | re.MULTILINE)
_QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Modelfile:
    """A Modelfile.

    Attributes:
        model: what `FROM` names.
        parameters: in order; a name may occur several times.
        adapters: paths, in order.
        others: the other instructions that occur, in lower case.
    """

    model: str
    parameters: tuple[tuple[str, str], ...] = ()
    adapters: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def is_modelfile(text: str) -> bool:
    """Return whether a text has a line `FROM …`."""
    return _FROM.search(text) is not None


def parse_modelfile(text: str) -> Modelfile:
    """Parse a Modelfile.

    Raises:
        InvalidError: it has no FROM, or a text that is not closed.
    """
    model = ""
    parameters: list[tuple[str, str]] = []
    adapters: list[str] = []
    others: dict[str, None] = {}
    for word, value in _instructions(text):
        if word == "from":
            model = value
        elif word == "parameter":
            name, _, setting = value.partition(" ")
            parameters.append((name.lower(), _unquoted(setting.strip())))
        elif word == "adapter":
            adapters.append(value)
        else:
            others[word] = None
    if not model:
        raise InvalidError(
            "the Modelfile has no FROM", hint="Name a file that `ollama show --modelfile MODEL` printed."
        )
    return Modelfile(model, tuple(parameters), tuple(adapters), tuple(others))


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction in lower case with its value; a text in three quotes may have several lines."""
    lines = iter(text.splitlines())
    for line in lines:
        found = _COMMAND.match(line.strip())
        if found is None:  # a comment, an empty line, or an instruction of a later version
            continue
        value = found[2].strip()
        if value.startswith(_QUOTES):
            value = _block(value.removeprefix(_QUOTES), lines)
        yield found[1].lower(), _unquoted(value)


def _block(value: str, lines: Iterator[str]) -> str:
    parts = [value]
    while _QUOTES not in parts[-1]:
        line = next(lines, None)
        if line is None:
            raise InvalidError("the Modelfile has a text in three quotes that is not closed")
        parts.append(line)
    return "\n".join(parts).partition(_QUOTES)[0]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
