"""Rendering of `garrison drift`."""

from datetime import datetime
from itertools import groupby

from rich.text import Text

from garrison.cli.views.age import ago, utc
from garrison.cli.views.not_asked import detail_of, local_hint
from garrison.cli.views.page import Page, counted, plain, shortened
from garrison.fleet.observe.drift import Drift
from garrison.fleet.report.inspect import Drifts
from garrison.store.records import Operation

__all__ = ["show_drifts"]

_MOST = 40
_MOST_UNKNOWN = 12
_NAME_WIDTH = 28
_LOOKS = {"missing": ("✕", "red"), "path": ("≠", "yellow"), "base": ("≠", "red"), "content": ("≠", "red")}


def show_drifts(drifts: Drifts, page: Page, now: datetime, *, everything: bool) -> None:
    """Print drift by stack, then the targets that could not be compared. `everything`: do not truncate."""
    _found(drifts, page, now, everything=everything)
    _unknown(drifts.unknown, page, everything=everything)


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
    for stack, group in groupby(shown, key=lambda one: one.resource.stack):
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


def _unknown(unknown: dict[str, str], page: Page, *, everything: bool) -> None:
    if not unknown:
        return
    page.blank()
    told = f"unknown: not counted as drift  {counted(len(unknown), 'target')}"
    page.heading(Text(told, "yellow"))
    names = list(unknown) if everything else list(unknown)[:_MOST_UNKNOWN]
    width = min(_NAME_WIDTH, max(len(name) for name in names))
    for name in names:
        head = Text.assemble("  ", ("? ", "yellow"), (f"{plain(name):<{width}}", "bold"), "  ")
        fault = detail_of(unknown[name])
        page.entry(head, Text(plain(unknown[name] if fault is None else f"not asked: {fault}")))
        if fault is not None:
            page.line("      ", ("→ ", "dim"), (local_hint(fault), "dim"))
    if len(unknown) > len(names):
        page.line("  ", (f"… and {counted(len(unknown) - len(names), 'more target')} (--all, or --json)", "dim"))


def _since(one: Drift, now: datetime) -> str:
    """Format when the adapter was applied or found gone.

    The time of a tombstone is when the adapter was found gone, not when it was applied.
    """
    at = one.resource.at
    if one.resource.operation is not Operation.LOST:
        return f"applied {ago(at, now)}"
    cause = f", {plain(one.resource.cause)}" if one.resource.cause else ""
    return f"gone since {utc(at)} UTC ({ago(at, now)}{cause})"


def _place(one: Drift) -> str:
    return f"{plain(one.resource.key.target)}/{plain(one.resource.key.name)}"
