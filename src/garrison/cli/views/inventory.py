"""Rendering of inventory rows: what each is, its state, and how old that knowledge is."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.text import Text

from garrison.cli.views.age import ago, duration
from garrison.cli.views.alike import reach_words
from garrison.cli.views.page import Page, plain, sentence, shortened
from garrison.cli.views.status import STATE_LOOKS
from garrison.fleet.report.inventory_rows import UNMANAGED, AdapterRow, ModelRow, Reach, Row, StackRow, TargetRow
from garrison.fleet.report.status import LAST_SEEN_WELL

__all__ = ["show_rows", "table"]

_MOST_ROWS = 200
_LOOKS = STATE_LOOKS | {
    UNMANAGED: ("·", "cyan"),
    "reachable": ("✓", "green"),
    "unreachable": ("?", "yellow"),
    "unusable": ("?", "yellow"),
    "new": ("·", "dim"),
}

_AWAY = ("unreachable", "unusable")

Cell = str | Text


def show_rows(noun: str, rows: Sequence[Row], page: Page, now: datetime, *, everything: bool) -> None:
    """Print one line per row. A terminal gets the first 200, unless `everything`; a pipe gets all."""
    shown = rows if everything or not page.wraps else rows[:_MOST_ROWS]
    table(_TITLES[noun], [_cells(row, now) for row in shown], page)
    if len(rows) > len(shown):
        page.line((f"… and {len(rows) - len(shown):,} more (--all, --query or --json)", "dim"))


def table(titles: Sequence[str], rows: Sequence[Sequence[Cell]], page: Page) -> None:
    """Print rows in columns, without control characters.

    In a pipe each row is one whole line. On a terminal, paths lose their beginning where they do not fit, and the last
    column wraps within its own width.
    """
    if page.wraps:
        _fitted(titles, rows, page)
        return
    lines = [list(titles), *([plain(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        page.console.file.write(text.rstrip() + "\n")


def _fitted(titles: Sequence[str], rows: Sequence[Sequence[Cell]], page: Page) -> None:
    """Print rows in columns on a terminal, shortening columns until the row fits or none is left to shorten."""
    laid = [[cell if isinstance(cell, Text) else Text(shortened(plain(cell))) for cell in row] for row in rows]
    columns = [list(column) for column in zip([Text(title, "bold") for title in titles], *laid, strict=True)]
    widths = [max(cell.cell_len for cell in column) for column in columns]
    for title in _SHORTENED:
        # The last column does not count: it wraps.
        excess = sum(widths[:-1]) + 2 * len(widths[:-1]) - page.width
        if excess > 0 and title in titles[:-1]:
            number = list(titles).index(title)
            room = max(_LEAST_ROOM, widths[number] - excess)
            columns[number] = [Text(_ending(cell.plain, room), cell.style) for cell in columns[number]]
            widths[number] = max(cell.cell_len for cell in columns[number])
    for *cells, last in zip(*columns, strict=True):
        head = Text()
        for cell, width in zip(cells, widths, strict=False):
            head.append_text(cell).append(" " * (width - cell.cell_len + 2))
        page.entry(head, last)


def _ending(path: str, room: int) -> str:
    """Cut a path to as many of its last parts as fit: `…/adapter-store/5e9752390a96…`."""
    if len(path) <= room:
        return path
    kept = ""
    for part in reversed(path.split("/")):
        if len(part) + len(kept) + 2 > room:
            break
        kept = f"/{part}{kept}"
    return f"…{kept or path[1 - room :]}"


_SHORTENED = ("path", "address", "base model", "stacks")
"""Columns to shorten, in this order, where a row does not fit."""
_LEAST_ROOM = 16

_TITLES = {
    "adapters": ("status", "target", "adapter", "stack", "path", "base model", "note"),
    "targets": ("state", "target", "address", "base model", "vLLM", "stacks", "adapters", "seen", "note"),
    "models": ("status", "target", "model", "path", "note"),
    "stacks": ("stack", "version", "applied", "targets", "adapters", "on drift"),
}


def _cells(row: Row, now: datetime) -> list[Cell]:
    match row:
        case AdapterRow():
            # The note says why the target is out of reach and since when; "fine when last seen" adds nothing.
            detail = "" if row.detail == LAST_SEEN_WELL and row.reach.state in _AWAY else row.detail
            return [
                _look(row.status), row.target, row.name, row.stack or "–", row.path or "–", row.base or "–",
                _note(detail, row.reach, now),
            ]  # fmt: skip
        case ModelRow():
            return [_look(row.status), row.target, row.name, row.path or "–", _note("", row.reach, now)]
        case TargetRow():
            return _target(row, now)
        case StackRow():
            ending = " (being destroyed)" if row.ending else ""
            return [
                f"{row.name}{ending}", str(row.version), ago(row.applied_at, now), f"{len(row.targets):,}",
                _counts(row.adapters), row.on_drift,
            ]  # fmt: skip
    raise AssertionError(f"unknown kind of row: {row!r}")


def _target(row: TargetRow, now: datetime) -> list[Cell]:
    one = row.status
    counts = dict(one.adapters) | ({UNMANAGED: row.unmanaged} if row.unmanaged else {})
    note = Text("INSECURE: its certificate is not verified", "bold red") if one.insecure else Text()
    if one.state in _AWAY:
        why = f"{one.cause}: {one.detail}" if one.detail else str(one.cause)
        note.append(
            f"{'; ' if note else ''}{plain(why)}; {reach_words(one.cause)} for {_age(one.since, now)}",
            "not bold yellow",
        )
    if one.lora_routes is False:
        named = f"{one.cause}: " if one.cause and one.state == "reachable" else ""
        note.append(f"{'; ' if note else ''}{named}cannot load adapters at run time", "not bold yellow")
    return [
        _look(one.state), one.name, one.base_url, one.base or "–", one.version or "–", sentence(one.stacks) or "–",
        _counts(counts), ago(one.last_seen, now), note,
    ]  # fmt: skip


def _look(state: str) -> Text:
    glyph, style = _LOOKS[state]
    return Text(f"{glyph} {state}", style)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in counts.items()) or "–"


def _note(detail: str, reach: Reach, now: datetime) -> str:
    """Format what is wrong with a row and, for a target out of reach, how old that knowledge is."""
    if reach.state == "reachable":
        return "; ".join(part for part in (detail, f"seen {ago(reach.last_seen, now)}") if part)
    if reach.state == "new":
        return "; ".join(part for part in (detail, "target never asked") if part)
    why = f"{reach.cause}: {reach.detail}" if reach.detail else str(reach.cause)
    away = f"{reach_words(reach.cause)} for {_age(reach.since, now)} ({why})"
    return "; ".join(part for part in (detail, away, f"last seen {ago(reach.last_seen, now)}") if part)


def _age(since: datetime | None, now: datetime) -> str:
    return duration((now - since).total_seconds()) if since else "ever"
