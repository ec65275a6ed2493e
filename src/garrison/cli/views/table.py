"""Tables for people: in a pipe a row is a line; on a terminal columns are left out before a word is broken."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garrison.base.output.plain_text import plain

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_facts", "print_table", "shown_columns"]

_GAP = 2


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str = "", console: "Console | None" = None
) -> None:
    """Print rows under titles, or `empty` where there are none.

    The first column is always shown. Those that are left out are named below the table.
    """
    from rich.table import Table
    from rich.text import Text

    from garrison.cli.views.columns import Column, show_rows
    from garrison.cli.views.page import Page

    page = Page(console)
    if not rows:
        page.line(empty)
        return
    cells = [[plain(cell) for cell in row] for row in rows]
    if not page.wraps:
        for line in show_rows(page, [Column(title) for title in titles], cells):
            page.print(line)
        return
    least = [max(map(_longest_word, (title, *(row[at] for row in cells)))) for at, title in enumerate(titles)]
    shown = shown_columns(least, page.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at in shown:
        table.add_column(titles[at], overflow="fold", min_width=least[at])
    for row in cells:
        table.add_row(*(Text(row[at]) for at in shown))
    page.print(table)
    if left_out := [title for at, title in enumerate(titles) if at not in shown]:
        page.line((f"{', '.join(left_out)}: shown on a wider terminal, and with --json", "dim"))


def shown_columns(least: Sequence[int], width: int) -> tuple[int, ...]:
    """Return which columns fit into a width without a broken word: the widest is left out first. Pure.

    Args:
        least: the longest word of each column, in cells. The first column always stays.
    """
    shown = list(range(len(least)))
    while len(shown) > 1 and sum(least[at] for at in shown) + _GAP * (len(shown) - 1) > width:
        shown.remove(max(shown[1:], key=lambda at: (least[at], at)))
    return tuple(shown)


def _longest_word(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.split()), default=0)


def print_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Print lines of `name  value`; None values are skipped."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        if value is not None:
            print(f"{name:<{width}}  {value}")
