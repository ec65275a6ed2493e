"""Rows of the inventory on the terminal: what they are, how they are, and how old that is."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from garrison.cli.age import ago, duration
from garrison.cli.page import Page, plain, sentence, shortened
from garrison.cli.status_view import STATE_LOOKS
from garrison.fleet.inventory_rows import UNMANAGED, AdapterRow, ModelRow, Reach, Row, StackRow, TargetRow
from garrison.fleet.status import LAST_SEEN_WELL

__all__ = ["show_rows", "table"]

_MOST_ROWS = 200
_LOOKS = STATE_LOOKS | {
    UNMANAGED: ("·", "cyan"),
    "reachable": ("✓", "green"),
    "unreachable": ("?", "yellow"),
    "new": ("·", "dim"),
}

Cell = str | Text


def show_rows(noun: str, rows: Sequence[Row], page: Page, now: datetime, *, everything: bool) -> None:
    """One line a row. A terminal gets the first 200, unless `everything`; a pipe gets all."""
    shown = rows if everything or not page.wraps else rows[:_MOST_ROWS]
    table(_TITLES[noun], [_cells(row, now) for row in shown], page)
    if len(rows) > len(shown):
        page.line((f"… and {len(rows) - len(shown):,} more (--all, --query or --json)", "dim"))


def table(titles: Sequence[str], rows: Sequence[Sequence[Cell]], page: Page) -> None:
    """Columns; in a pipe a row is a line. What servers say is shown without control characters."""
    if page.wraps:
        laid = Table(box=None, pad_edge=False, header_style="bold")
        for title in titles:
            laid.add_column(title, overflow="fold")
        for row in rows:
            laid.add_row(*(cell if isinstance(cell, Text) else Text(shortened(plain(cell))) for cell in row))
        page.print(laid)
        return
    lines = [list(titles), *([plain(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        page.console.file.write(text.rstrip() + "\n")


_TITLES = {
    "adapters": ("status", "target", "adapter", "stack", "path", "base model", "note"),
    "targets": ("state", "target", "address", "base model", "vLLM", "stacks", "adapters", "seen", "note"),
    "models": ("status", "target", "model", "path", "note"),
    "stacks": ("stack", "version", "applied", "targets", "adapters", "on drift"),
}


def _cells(row: Row, now: datetime) -> list[Cell]:
    match row:
        case AdapterRow():
            # Why it is unknown says the age of the knowledge; that it was well then goes without saying.
            detail = "" if row.detail == LAST_SEEN_WELL and row.reach.state == "unreachable" else row.detail
            return [
                _look(row.status), row.target, row.name, row.stack or "–", row.path or "–", row.base or "–",
                _note(detail, row.reach, now),
            ]  # fmt: skip
        case ModelRow():
            return [_look(row.status), row.target, row.name, row.path or "–", _note("", row.reach, now)]
        case TargetRow():
            return _target(row, now)
        case StackRow():
            one = row.status
            ending = " (being destroyed)" if one.ending else ""
            return [
                f"{one.name}{ending}", str(one.version), ago(one.applied_at, now), f"{len(one.targets):,}",
                _counts(one.counts), one.on_drift,
            ]  # fmt: skip
    raise AssertionError(f"no such row: {row!r}")


def _target(row: TargetRow, now: datetime) -> list[Cell]:
    one = row.status
    counts = dict(one.adapters) | ({UNMANAGED: row.unmanaged} if row.unmanaged else {})
    note = Text("INSECURE: its certificate is not verified", "bold red") if one.insecure else Text()
    if one.state == "unreachable":
        why = f"{one.cause}: {one.detail}" if one.detail else str(one.cause)
        note.append(f"{'; ' if note else ''}{plain(why)}; out of reach for {_age(one.since, now)}", "not bold yellow")
    if one.lora_routes is False:
        note.append(f"{'; ' if note else ''}cannot load adapters at run time", "not bold yellow")
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
    """Why it is not well, and for what is out of reach how old the knowledge is."""
    if reach.state == "reachable":
        return "; ".join(part for part in (detail, f"seen {ago(reach.last_seen, now)}") if part)
    if reach.state == "new":
        return "; ".join(part for part in (detail, "its target was never asked") if part)
    why = f"{reach.cause}: {reach.detail}" if reach.detail else str(reach.cause)
    away = f"out of reach for {_age(reach.since, now)} ({why})"
    return "; ".join(part for part in (detail, away, f"last seen {ago(reach.last_seen, now)}") if part)


def _age(since: datetime | None, now: datetime) -> str:
    return duration((now - since).total_seconds()) if since else "ever"
