"""Rendering of `garrison drift`."""

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby

from rich.text import Text

from garrison.cli.views.age import ago, utc
from garrison.cli.views.alike import alike, show_alike
from garrison.cli.views.page import Page, counted, plain, shortened
from garrison.fleet.report.drifts import DriftRow, Drifts

__all__ = ["show_drifts"]

_MOST = 40
_MOST_UNKNOWN = 12
_NAME_WIDTH = 28
_LOOKS = {"missing": ("✕", "red"), "path": ("≠", "yellow"), "base": ("≠", "red"), "content": ("≠", "red")}


def show_drifts(drifts: Drifts, page: Page, now: datetime, *, everything: bool, place: str | None = None) -> None:
    """Print drift by stack, then the targets that could not be compared.

    Args:
        everything: do not truncate.
        place: the server that looked; None for this process.
    """
    _found(drifts, page, now, everything=everything)
    _unknown(drifts.unknown, page, everything=everything, place=place)


def _found(drifts: Drifts, page: Page, now: datetime, *, everything: bool) -> None:
    if not drifts.found:
        compared = f"{counted(drifts.checked, 'adapter')} compared with what was last applied"
        # Not green while a target is unknown: what could not be compared may have drifted.
        glyph, said, style = ("?", "no drift seen", "yellow") if drifts.unknown else ("✓", "no drift", "green")
        page.line((f"{glyph} ", style), (said, style), (f"  {compared}", "dim"))
        return
    differ = f"{len(drifts.found):,} of {counted(drifts.checked, 'adapter')} "
    differ += "differs" if len(drifts.found) == 1 else "differ"
    page.heading(Text.assemble(("drift", "bold red"), f"  {differ} from what was last applied"))
    shown = drifts.found if everything else drifts.found[:_MOST]
    width = min(_NAME_WIDTH, max(len(_place(one)) for one in shown))
    for stack, group in groupby(shown, key=lambda one: one.stack):
        page.blank()
        page.line(("stack ", "dim"), (plain(stack), "bold"))
        for one in group:
            glyph, style = _LOOKS[one.kind]
            head = Text.assemble("  ", (f"{glyph} {one.kind:<8}", style), (f"{_place(one):<{width}}", "bold"), "  ")
            page.entry(head, Text.assemble(shortened(one.words), (f"  {_since(one, now)}", "dim")))
    if len(drifts.found) > len(shown):
        page.line("  ", (f"… and {len(drifts.found) - len(shown):,} more (--all shows them, or --json)", "dim"))
    page.blank()
    if any(one.kind == "missing" for one in drifts.found):
        page.line("  ", ("→ ", "dim"), "Missing: `garrison apply` loads it again.")
    if any(one.kind == "content" for one in drifts.found):
        page.line("  ", ("→ ", "dim"), "Other content: `garrison apply`, or the agent, serves what was applied anew.")
    if any(one.kind in ("path", "base") for one in drifts.found):
        page.line(
            "  ",
            ("→ ", "dim"),
            "Changed by others: `garrison extract` keeps it, `garrison apply --force` overwrites it.",
        )


def _unknown(unknown: Mapping[str, str], page: Page, *, everything: bool, place: str | None) -> None:
    if not unknown:
        return
    page.blank()
    told = f"unknown: not counted as drift  {counted(len(unknown), 'target')}"
    page.heading(Text(told, "yellow"))
    groups = alike(unknown, place, everything=everything)
    show_alike(groups, page, most=len(groups) if everything else _MOST_UNKNOWN, width=_NAME_WIDTH)


def _since(one: DriftRow, now: datetime) -> str:
    """Format when the adapter was applied or found gone.

    The time of a tombstone is when the adapter was found gone, not when it was applied.
    """
    if not one.gone:
        return f"applied {ago(one.at, now)}"
    cause = f", {plain(one.cause)}" if one.cause else ""
    return f"gone since {utc(one.at)} UTC ({ago(one.at, now)}{cause})"


def _place(one: DriftRow) -> str:
    return f"{plain(one.target)}/{plain(one.name)}"
