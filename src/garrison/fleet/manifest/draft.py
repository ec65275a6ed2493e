"""A manifest between parsing and validation: its content under canonical keys, with the position of each value."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from garrison.base.documents import Path

__all__ = ["Draft", "LazyPlaces"]


class LazyPlaces(Mapping[Path, str]):
    """Positions of values, or how they are written, which are computed at the first access."""

    def __init__(self, find: Callable[[], Mapping[Path, str]]) -> None:
        self._find = find
        self._found: Mapping[Path, str] | None = None

    def __getitem__(self, path: Path) -> str:
        return self._all()[path]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[Path, str]:
        if self._found is None:
            self._found = self._find()
        return self._found


@dataclass(frozen=True, slots=True)
class Draft:
    """A normalized manifest.

    Attributes:
        name: the file; the position of values that have none of their own.
        content: the values, under snake_case keys.
        places: `file:line:column` by path.
        written: the original text by path, for values with a substituted variable; errors show it instead of the value.
        scalars: how the numbers, dates, booleans and nulls of YAML are written, by path.
    """

    name: str
    content: dict[str, Any]
    places: Mapping[Path, str] = field(default_factory=dict)
    written: Mapping[Path, str] = field(default_factory=dict)
    scalars: Mapping[Path, str] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """Return the position of the value at `path`, or of its nearest ancestor with a position."""
        for length in range(len(path), 0, -1):
            if place := self.places.get(path[:length]):
                return place
        return self.places.get((), self.name)

    def shown(self, path: Path, value: object) -> str:
        """Return `value` quoted for a message; where a variable was substituted, the text as written."""
        return repr(self.written.get(path, value))
