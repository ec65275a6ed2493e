"""The query language of listings.

    stack:cabinet-7 status:drifted target:edge* -name:"old one"

A term is `field:value`; `*` matches any text, including none, unless it is quoted. Terms of different fields must all
match; of several terms of one field, one must match. A term with `+` must match on its own, a term with `-` must not
match. Pure.
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
"""The fields of a listing. A tuple names all possible values, so that an invalid one is an error; None allows any."""

Value = str | bool | None | tuple[str, ...]
"""The value of a field in a row. If there are several, one match suffices; None matches nothing."""

_TERM = re.compile(
    r'(?P<sign>[+-]?)(?P<field>[^\s:"]*)(?P<colon>:?)(?P<value>(?:"(?:[^"\\]|\\.)*"|[^\s"])*)', re.DOTALL
)
_PIECE = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<star>\*+)|(?P<bare>[^"*]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PLAIN = re.compile(r'[^\s"*]+')


@dataclass(frozen=True, slots=True)
class Term:
    """One term. `pattern` is the literal text between the stars: `edge*` is `("edge", "")`. `column` counts from 1."""

    field: str
    pattern: tuple[str, ...]
    sign: Literal["", "+", "-"] = ""
    column: int = dataclass_field(default=1, compare=False)

    def matches(self, value: Value) -> bool:
        """Return whether the value matches the pattern; the sign is left to the query."""
        if value is None:
            return False
        if isinstance(value, bool):
            return _fits(self.pattern, str(value).lower())
        return any(_fits(self.pattern, one) for one in (value if isinstance(value, tuple) else (value,)))

    def __str__(self) -> str:
        return f"{self.sign}{self.field}:{'*'.join(_quoted(part) for part in self.pattern)}"


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. Without terms it matches every row."""

    terms: tuple[Term, ...] = ()

    def matches(self, row: Mapping[str, Value]) -> bool:
        """Return whether a row with these fields matches the query."""
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
    """Parse `text` as a query over a listing that has `fields`.

    Raises:
        UsageError: unknown field or value, invalid term, or unclosed quote; the message names the column.
    """
    terms: list[Term] = []
    position = 0
    while True:
        position += len(text[position:]) - len(text[position:].lstrip())
        if position == len(text):
            return Query(tuple(terms))
        match = _TERM.match(text, position)
        assert match is not None  # the pattern also matches the empty string
        if match.end() < len(text) and not text[match.end()].isspace():
            raise _fault("unclosed quote", match.end(), 'Quote a value that contains white space: name:"a b".')
        terms.append(_term(match, fields))
        position = match.end()


def _term(match: "re.Match[str]", fields: Fields) -> Term:
    name, column = match["field"], match.start() + 1
    if not match["colon"]:
        word = match["field"] + match["value"]
        raise _fault(
            f"{word!r} is not of the form field:value", match.start(), f"To match a name: name:{word or 'sql'}."
        )
    if name not in fields:
        raise _unknown(f"unknown field {name!r}", match.start("field"), name, tuple(fields), "Fields:")
    if not match["value"]:
        raise _fault(f"{name}: has no value", match.end(), f"To match any value: {name}:*.")
    pattern = _pattern(match["value"])
    allowed = fields[name]
    if allowed is not None and not any(_fits(pattern, value) for value in allowed):
        shown = match["value"]
        raise _unknown(f"invalid {name} {shown}", match.start("value"), shown, allowed, f"Values of {name}:")
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
    """Match in one pass: text between two stars is taken at its first occurrence, so there is no backtracking."""
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
