"""Which modules an adapter's config names, by PEFT's rules.

A list names the ends of modules and a string is a pattern for whole names; a key of `rank_pattern` is a pattern for the
end. If that cannot be decided, the result is None and the caller goes by the tensors.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from garrison.models.adapters.patterns import MAX_PATTERN, MAX_TEXT, Allowance, Pattern

__all__ = ["RankPattern", "Targets"]

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
_END = r"(?:.*\.)?"
_MOST_PATTERNS = 256
_SHOWN = 80


class Targets:
    """`target_modules`.

    Args:
        names: the list, or the single pattern.

    Attributes:
        undecided: why the last undecided match could not be decided, as a sentence; None if all were.

    Raises:
        PatternError: the pattern is not valid.
    """

    def __init__(self, names: Iterable[str], *, pattern: bool) -> None:
        self.undecided: str | None = None
        self._names = frozenset(names)
        self._pattern = Pattern(*self._names) if pattern and "all-linear" not in self._names else None
        self._all = pattern and self._pattern is None

    def has(self, module: str, allowance: Allowance) -> bool | None:
        if self._all:
            return True
        answer = None
        if not allowance.spent():
            answer = self._listed(module) if self._pattern is None else self._pattern.matches(module)
        if answer is None:
            beyond = self._pattern.beyond if self._pattern is not None else None
            self.undecided = f"target_modules is a pattern that {beyond}" if beyond else _why_not(module, allowance)
        return answer

    def without_modules(self, modules: Iterable[str], allowance: Allowance) -> list[str]:
        """The names of the list that none of `modules` ends with, sorted; none if that cannot be decided."""
        found: set[str] = set()
        for module in modules:
            if self._all or self._pattern is not None or allowance.spent() or len(module) > MAX_TEXT:
                return []
            found.update(end for end in _ends(module) if end in self._names)
        return sorted(self._names - found)

    def _listed(self, module: str) -> bool | None:
        return any(end in self._names for end in _ends(module)) if len(module) <= MAX_TEXT else None


class RankPattern:
    """`rank_pattern`: the first key that matches the end of a module's name gives its rank.

    Keys that are plain names are looked up instead of matched, since EVA writes one for every module. A dot in such a
    key still matches any character.

    Attributes:
        undecided: as in `Targets`.

    Raises:
        PatternError: a key is not a valid pattern.
    """

    def __init__(self, ranks: Mapping[str, int]) -> None:
        self.undecided: str | None = None
        self._keys = tuple(ranks)
        self._ranks = tuple(ranks.values())
        self._plain: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}
        self._patterns: dict[int, Pattern | None] = {}
        room = 16 * MAX_PATTERN
        for index, key in enumerate(self._keys):
            if _PLAIN.fullmatch(key) and len(key) <= MAX_TEXT:
                dots = tuple(at for at, character in enumerate(key) if character == ".")
                self._plain.setdefault(len(key), {}).setdefault(dots, {})[key] = index
            elif len(self._patterns) < _MOST_PATTERNS and (room := room - len(key)) >= 0:
                self._patterns[index] = Pattern(key, after=_END)
            else:
                self._patterns[index] = None

    def of(self, module: str, default: int, allowance: Allowance) -> int | None:
        """The rank of `module`; `default` if no key matches, None if that cannot be decided."""
        found = self._looked_up(module, allowance)
        if found is None:
            self.undecided = _why_not(module, allowance)
            return None
        for index, pattern in self._patterns.items():
            if index > found:
                break
            matched = pattern.matches(module) if pattern is not None and not allowance.spent() else None
            if matched is None:
                beyond = "is one of too many" if pattern is None else pattern.beyond
                key = f"rank_pattern has the key {self._keys[index][:_SHOWN]!r}, which {beyond}"
                self.undecided = key if beyond else _why_not(module, allowance)
                return None
            if matched:
                return self._ranks[index]
        return self._ranks[found] if found < len(self._ranks) else default

    def _looked_up(self, module: str, allowance: Allowance) -> int | None:
        """The index of the first plain key that matches; the number of keys if none does."""
        first = len(self._keys)
        if not self._plain:
            return first
        if len(module) > MAX_TEXT:
            return None
        for end in _ends(module):
            for dots, indexes in self._plain.get(len(end), {}).items():
                if allowance.spent():
                    return None
                first = min(first, indexes.get(_with_dots(end, dots), first))
        return first


def _ends(module: str) -> Iterator[str]:
    """The name, and what comes after each of its dots."""
    yield module
    at = module.find(".")
    while at >= 0:
        yield module[at + 1 :]
        at = module.find(".", at + 1)


def _with_dots(name: str, dots: tuple[int, ...]) -> str:
    characters = list(name)
    for at in dots:
        characters[at] = "."
    return "".join(characters)


def _why_not(module: str, allowance: Allowance) -> str:
    if allowance.spent():
        return "there are too many names and patterns to compare all of them"
    return f"names such as {module[:_SHOWN]!r} are not compared with patterns"
