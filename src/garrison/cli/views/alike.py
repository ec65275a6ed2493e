"""Targets that are unknown for the same reason, as one entry: a list of hundreds hides what is different. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.text import Text

from garrison.cli.views.not_asked import detail_of, is_local, next_step
from garrison.cli.views.page import Page, counted, plain, sentence
from garrison.fleet.values.cures import is_silent

__all__ = ["MANY", "Alike", "alike", "counted_unknown", "reach_words", "show_alike"]

MANY = 3
"""So many that are alike become one entry. Fewer are shown one by one, with what is known of each."""
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Alike:
    """Targets with one cause.

    Attributes:
        kind: `out of reach`, `not usable` or `not asked`.
        said: the cause, with the detail where all have the same.
        step: what to do about it; None if there is nothing.
    """

    kind: str
    said: str
    names: tuple[str, ...]
    step: str | None = None

    @property
    def title(self) -> str:
        """The name of a single target, or the number of them."""
        return plain(self.names[0]) if len(self.names) == 1 else counted(len(self.names), "target")

    @property
    def listed(self) -> str:
        """The names, if there are several: a few, and the number of the others."""
        return "" if len(self.names) == 1 else sentence(self.names, _MOST_NAMES)


def reach_words(cause: str | None) -> str:
    """Return what a target is called that is unknown because of `cause`: only a silent one is out of reach."""
    if is_local(cause):
        return "not asked"
    return "out of reach" if is_silent(cause) else "not usable"


def counted_unknown(causes: Iterable[str]) -> str:
    """Format how many targets are unknown, by what they are called: `1 target out of reach, 2 not usable`."""
    counts = Counter(reach_words(cause) for cause in causes)
    order = [word for word in ("out of reach", "not usable", "not asked") if counts[word]]
    return ", ".join(
        f"{counts[word]:,} {word}" if number else f"{counted(counts[word], 'target')} {word}"
        for number, word in enumerate(order)
    )


def alike(
    said: Mapping[str, str], place: str | None = None, *, everything: bool = False, least: int = MANY
) -> list[Alike]:
    """Group targets by cause and next step, the largest groups first.

    Args:
        said: `cause: detail` by target.
        place: the server that looked; None for this process.
        everything: leave each target by itself.
        least: so many that are alike become one entry.
    """
    found: dict[tuple[str, str | None], list[str]] = {}
    for name in sorted(said):
        cause = said[name].partition(": ")[0]
        found.setdefault((cause, next_step(said[name], place)), []).append(name)
    groups = []
    for (cause, step), names in found.items():
        if everything or len(names) < least:
            groups += [Alike(reach_words(cause), _words([said[name]]), (name,), step) for name in names]
        else:
            groups.append(Alike(reach_words(cause), _words([said[name] for name in names]), tuple(names), step))
    return sorted(groups, key=lambda one: (-len(one.names), one.names))


def show_alike(groups: Iterable[Alike], page: Page, *, most: int, width: int) -> None:
    """Print groups, each next step below the first that needs it, and how many targets are left out."""
    groups = list(groups)
    shown = groups[:most]
    width = min(width, max((len(one.title) for one in shown), default=0))
    told: set[str] = set()
    for one in shown:
        head = Text.assemble("  ", ("? ", "yellow"), (f"{one.title:<{width}}", "bold"), "  ")
        page.entry(head, Text(plain(one.said) + (f": {one.listed}" if one.listed else "")))
        if one.step and one.step not in told:
            told.add(one.step)
            page.line("      ", ("→ ", "dim"), (one.step, "dim"))
    if left := sum(len(one.names) for one in groups[most:]):
        page.line("  ", (f"… and {counted(left, 'more target')} (--all, or --json)", "dim"))


def _words(said: Iterable[str]) -> str:
    """Return what is said of all; of different details the first, as an example."""
    different = list(dict.fromkeys(said))
    fault = detail_of(different[0])
    first = different[0] if fault is None else f"not asked: {fault}"
    return first if len(different) == 1 else f"{first} (and alike)"
