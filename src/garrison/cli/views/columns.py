"""Tables that keep one line a row: on a terminal the wide columns are cut to its width, in a pipe nothing is. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from garrison.cli.views.page import Page, plain

__all__ = ["Column", "show_rows"]

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        least: to which width it may be cut where the terminal is too narrow; None: it is never cut.
        right: its cells are numbers.
        keeps_end: what is cut is the beginning, as of a path, whose end tells more.
        styles: Rich styles by cell text.
    """

    title: str
    least: int | None = None
    right: bool = False
    keeps_end: bool = False
    styles: Mapping[str, str] | None = None

    def cell(self, text: str, width: int) -> Text:
        """The cell at its width."""
        shown = text
        if len(text) > width:
            shown = "…" + text[len(text) - width + 1 :] if self.keeps_end else text[: width - 1] + "…"
        return Text(shown.rjust(width) if self.right else shown.ljust(width), (self.styles or {}).get(text, ""))


def show_rows(page: Page, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[Text]:
    """Return the lines of a table, its titles first."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells, page.width if page.wraps else None)
    titles = _line([Text(one.cell(one.title, width).plain, "bold") for one, width in _each(columns, widths)])
    return [titles, *(_row(columns, widths, row) for row in cells)]


def _row(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> Text:
    return _line([one.cell(text, width) for one, width, text in zip(columns, widths, row, strict=True)])


def _each(columns: Sequence[Column], widths: Sequence[int]) -> list[tuple[Column, int]]:
    return list(zip(columns, widths, strict=True))


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int | None) -> list[int]:
    natural = [max([len(one.title), *(len(row[at]) for row in rows)]) for at, one in enumerate(columns)]
    if room is None:
        return natural
    found = list(natural)
    over = sum(found) + _GAP * (len(found) - 1) - room
    for at, one in sorted(enumerate(columns), key=lambda pair: -natural[pair[0]]):
        if over > 0 and one.least is not None:
            cut = min(over, max(0, found[at] - one.least))
            found[at] -= cut
            over -= cut
    return found


def _line(cells: Sequence[Text]) -> Text:
    line = Text(" " * _GAP).join(cells)
    line.rstrip()
    return line
