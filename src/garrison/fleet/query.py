"""The query language of listings.

    stack:cabinet-7 status:drifted target:edge* -name:"old one"

A term is `field:value`; `*` stands for anything, also for nothing, unless it is quoted. Terms of different fields must
all hold; of several terms of one field, one is enough. `+` makes a term one that must hold by itself, `-` one that must
not. Pure.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Literal

from garrison.base.errors import UsageError

__all__ = ["EVERYTHING", "Fields", "Query", "Term", "Value", "parse_query"]

Fields = Mapping[str, tuple[str, ...] | None]
"""The fields a listing has. A tuple names all the values there are, so that a wrong one can be told; else None."""

Value = str | bool | None | tuple[str, ...]
"""Of a field of a row. One of several is enough; None matches nothing."""

_TERM = re.compile(
    r'(?P<sign>[+-]?)(?P<field>[^\s:"]*)(?P<colon>:?)(?P<value>(?:"(?:[^"\\]|\\.)*"|[^\s"])*)', re.DOTALL
)
_PIECE = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<star>\*+)|(?P<bare>[^"*]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PLAIN = re.compile(r'[^\s"*]+')


@dataclass(frozen=True, slots=True)
class Term:
    """`pattern` is the literal text between the stars: `edge*` is `("edge", "")`. `column` counts from 1."""

    field: str
    pattern: tuple[str, ...]
    sign: Literal["", "+", "-"] = ""
    column: int = dataclass_field(default=1, compare=False)

    def matches(self, value: Value) -> bool:
        """Whether the value fits the pattern; the sign is the query's business."""
        if value is None:
            return False
        if isinstance(value, bool):
            return _fits(self.pattern, str(value).lower())
        return any(_fits(self.pattern, one) for one in (value if isinstance(value, tuple) else (value,)))

    def __str__(self) -> str:
        return f"{self.sign}{self.field}:{'*'.join(_quoted(part) for part in self.pattern)}"


@dataclass(frozen=True, slots=True)
class Query:
    """Without terms it takes everything."""

    terms: tuple[Term, ...] = ()

    def matches(self, row: Mapping[str, Value]) -> bool:
        """Whether the row with these fields belongs to the answer."""
        either: dict[str, bool] = {}
        for term in self.terms:
            found = term.matches(row.get(term.field))
            if term.sign:
                if found is (term.sign == "-"):
                    return False
            else:
                either[term.field] = either.get(term.field, False) or found
        return all(either.values())

    def __str__(self) -> str:
        return " ".join(str(term) for term in self.terms)


EVERYTHING = Query()


def parse_query(text: str, fields: Fields) -> Query:
    """The query in `text`, over a listing that has `fields`.

    Raises:
        UsageError: no such field or value, no term, or an open quote; the message names the column.
    """
    terms: list[Term] = []
    position = 0
    while True:
        position += len(text[position:]) - len(text[position:].lstrip())
        if position == len(text):
            return Query(tuple(terms))
        match = _TERM.match(text, position)
        assert match is not None  # every part of it may be empty
        if match.end() < len(text) and not text[match.end()].isspace():
            raise _fault("an open quote", match.end(), 'A value with blanks stands in quotes: name:"a b".')
        terms.append(_term(match, fields))
        position = match.end()


def _term(match: "re.Match[str]", fields: Fields) -> Term:
    name, column = match["field"], match.start() + 1
    if not match["colon"]:
        word = match["field"] + match["value"]
        raise _fault(f"{word!r} is no field:value", match.start(), f"For a name: name:{word or 'sql'}.")
    if name not in fields:
        raise _unknown(f"there is no field {name!r}", match.start("field"), name, tuple(fields), "The fields are")
    if not match["value"]:
        raise _fault(f"{name}: has no value", match.end(), f"For any value at all: {name}:*.")
    pattern = _pattern(match["value"])
    allowed = fields[name]
    if allowed is not None and not any(_fits(pattern, value) for value in allowed):
        shown = match["value"]
        raise _unknown(f"{name} is never {shown}", match.start("value"), shown, allowed, f"The values of {name} are")
    sign: Literal["", "+", "-"] = "+" if match["sign"] == "+" else "-" if match["sign"] == "-" else ""
    return Term(name, pattern, sign, column)


def _pattern(text: str) -> tuple[str, ...]:
    parts = [""]
    for piece in _PIECE.finditer(text):
        if piece["star"]:
            parts.append("")
        elif piece["quoted"] is not None:
            parts[-1] += _ESCAPED.sub(r"\1", piece["quoted"])
        else:
            parts[-1] += piece["bare"]
    return tuple(parts)


def _fits(pattern: tuple[str, ...], value: str) -> bool:
    """In one pass: what stands between two stars is taken where it first occurs."""
    first, *middle = pattern
    if not middle:
        return value == first
    last = middle.pop()
    if not value.startswith(first) or not value.endswith(last) or len(value) < len(first) + len(last):
        return False
    position, end = len(first), len(value) - len(last)
    for part in middle:
        found = value.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def _quoted(part: str) -> str:
    if not part or _PLAIN.fullmatch(part):
        return part
    return '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unknown(what: str, position: int, given: str, known: tuple[str, ...], listed: str) -> UsageError:
    close = difflib.get_close_matches(given, known, 1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return _fault(what, position, f"{hint}{listed} {', '.join(known)}.")


def _fault(what: str, position: int, hint: str) -> UsageError:
    return UsageError(f"query, column {position + 1}: {what}", hint=hint)
