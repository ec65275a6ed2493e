"""Positions of the values in a JSON text, which the standard parser does not report. Computed only for an error."""

import json
import re
from collections.abc import Callable, Iterator, Mapping

__all__ = ["LazyPositions", "json_positions", "repeated_key"]

Path = tuple[str | int, ...]
Position = tuple[int, int]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


class LazyPositions(Mapping[Path, Position]):
    """Positions that are computed at the first access: a valid document needs none."""

    def __init__(self, find: Callable[[], Mapping[Path, Position]]) -> None:
        self._find = find
        self._found: Mapping[Path, Position] | None = None

    def __getitem__(self, path: Path) -> Position:
        return self._all()[path]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[Path, Position]:
        if self._found is None:
            self._found = self._find()
        return self._found


def json_positions(text: str) -> dict[Path, Position]:
    """Return (line, column), from 1, of every value by its path; `text` must be valid JSON. A value in a mapping
    has the position of its key."""
    found: dict[Path, Position] = {}
    for path, position in _places(text):
        found.setdefault(path, position)
    return found


def repeated_key(text: str) -> tuple[str, Position] | None:
    """Return the first repeated key of a mapping and the position of its repetition; None if there is none."""
    seen: set[Path] = set()
    for path, position in _places(text):
        if path and isinstance(path[-1], str) and path in seen:
            return path[-1], position
        seen.add(path)
    return None


def _places(text: str) -> Iterator[tuple[Path, Position]]:
    """Yield keys and items in the order of the text. Not recursive, since the depth is not bounded."""
    line, line_start, last = 1, 0, 0
    path: list[str | int] = []
    mappings: list[bool] = []
    """For each open bracket, whether it opens a mapping."""
    expects_key = False
    for match in _TOKEN.finditer(text):
        start, piece = match.start(), match[0]
        if breaks := text.count("\n", last, start):
            line += breaks
            line_start = text.rindex("\n", last, start) + 1
        last = start
        if piece == ":":
            continue
        if piece == ",":
            if mappings[-1]:
                expects_key = True
            else:
                path[-1] = int(path[-1]) + 1
            continue
        if piece in "}]":
            mappings.pop()
            path.pop()
            expects_key = False
            continue
        position = (line, start - line_start + 1)
        if expects_key:
            path[-1] = json.loads(piece, strict=False)
            expects_key = False
            yield tuple(path), position
            continue
        if not mappings or not mappings[-1]:
            yield tuple(path), position
        if piece in "{[":
            mappings.append(piece == "{")
            expects_key = piece == "{"
            path.append("" if expects_key else 0)
