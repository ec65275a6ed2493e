"""The errors of a file, collected so that one run reports several of them."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from garrison.base.documents import Path
from garrison.base.errors import InvalidError

__all__ = ["Problems", "did_you_mean", "dotted"]

_MOST_SHOWN = 10
_MOST_KEPT = 100


@dataclass(slots=True)
class Problems:
    """Collected errors."""

    found: list[tuple[Path, str, str, str | None]] = field(default_factory=list)

    def add(self, where: str, path: Path, text: str, hint: str | None = None) -> None:
        """Record an error, unless one is recorded for the same value, its parent or its child.

        A second error in one place is often only a consequence of the first.

        Args:
            where: `file:line:column`.
        """
        if len(self.found) < _MOST_KEPT and not any(
            path[: len(other)] == other or other[: len(path)] == path for other, *_ in self.found if other
        ):
            self.found.append((path, where, text, hint))

    def refuse(self) -> None:
        """Raise the collected errors, if any.

        Raises:
            InvalidError: `details["problems"]` lists each error as {where, problem, hint}.
        """
        if not self.found:
            return
        found = sorted(self.found, key=lambda one: _order(one[1]))
        details = {"problems": [{"where": at, "problem": text, "hint": hint} for _, at, text, hint in found]}
        if len(found) == 1:
            _, where, text, hint = found[0]
            raise InvalidError(f"{where}: {text}", hint=hint, details=details)
        lines = [f"{at}: {text}" + (f" ({hint})" if hint else "") for _, at, text, hint in found[:_MOST_SHOWN]]
        more = len(found) - len(lines)
        tail = [f"and {more} more"] if more else []
        raise InvalidError(
            f"the manifest has {len(found)} errors:\n  " + "\n  ".join(lines + tail),
            hint="Fix these lines.",
            details=details,
        )


def _order(where: str) -> tuple[str, int, int]:
    """Sort key of `file:line:column`: by file, then numerically by line and column."""
    name, line, column = (["", "", *where.rsplit(":", 2)])[-3:]
    return (name, int(line), int(column)) if line.isdecimal() and column.isdecimal() else (where, 0, 0)


def dotted(path: Iterable[str | int]) -> str:
    """Return a path as text: `adapters.sql.targets.0`."""
    return ".".join(map(str, path))


def did_you_mean(word: str, known: Iterable[str], *, what: str = "keys") -> str:
    """Return a hint that suggests the closest of `known`, or lists them."""
    names = list(known)
    folded = {name.replace("_", "").lower(): name for name in names}
    close = difflib.get_close_matches(word.replace("_", "").replace("-", "").lower(), folded, 1)
    if close:
        return f"Did you mean {folded[close[0]]!r}?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"Known {what}: {shown}." if names else f"There are no {what}."
