"""Rendering of `garrison adapters gc`: what was freed, what was kept, and why."""

from collections.abc import Sequence
from datetime import datetime

from garrison.base.values import size_text
from garrison.cli.views.age import ago
from garrison.cli.views.page import Page, counted, plain
from garrison.fleet.artifacts.gc import Collected, Kept
from garrison.fleet.artifacts.pins import Pin

__all__ = ["print_collected"]

_SHORT = 12
_MOST_PINS = 5
_WHY = {
    "served": "",
    "applied": ", last applied there",
    "declared": ", declared there",
    "running": ", in an unfinished command",
}


def print_collected(stores: Sequence[Collected], *, dry_run: bool, now: datetime, page: Page | None = None) -> None:
    """Print freed and kept entries by store; with `dry_run`, what would be freed."""
    page = page or Page()
    if not stores:
        page.line("no adapter store on this machine yet; `garrison apply` creates one when it stages an adapter")
    for store in stores:
        page.line(("store ", "bold"), str(store.root))
        if store.refused is not None:
            page.line(("⚠ skipped: ", "yellow"), store.refused, indent=2)
            continue
        for entry in store.freed:
            page.line(
                ("✕ would free " if dry_run else "✕ freed ", "red"), _entry(entry.path.name, entry.bytes), indent=2
            )
        for kept in store.kept:
            page.line(
                ("= kept ", "dim"), f"{_entry(kept.entry.path.name, kept.entry.bytes)}: {_reason(kept, now)}", indent=2
            )
        page.line(_summary(store, dry_run), indent=2)


def _entry(name: str, size: int) -> str:
    digest, dash, generation = name.partition("-")
    return f"{digest[:_SHORT]}{dash}{generation} ({size_text(size)})"


def _reason(kept: Kept, now: datetime) -> str:
    if not kept.pins:
        return f"staged or requested {ago(datetime.fromtimestamp(kept.entry.used_at, now.tzinfo), now)}"
    told = "; ".join(_pin(pin, now) for pin in kept.pins[:_MOST_PINS])
    more = len(kept.pins) - _MOST_PINS
    return f"{told}; and {more:,} more" if more > 0 else told


def _pin(pin: Pin, now: datetime) -> str:
    away = f" (not seen well since {ago(pin.unreachable_since, now)})" if pin.unreachable_since else ""
    return f"{plain(pin.name)} on {plain(pin.target)}{away}{_WHY[pin.why]}"


def _summary(store: Collected, dry_run: bool) -> str:
    would = "would free" if dry_run else "freed"
    left = f", and leftovers of {counted(store.leftovers, 'killed command')}" if store.leftovers else ""
    gone = counted(len(store.freed), "entry", "entries")
    return f"{would} {gone}, {size_text(store.bytes)}{left}; kept {len(store.kept):,}"
