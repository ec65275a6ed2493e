"""How an apply ended: what was done, what failed and what to do about it, and what is still owed."""

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from garrison.cli.fleet_glyphs import DONE_WORDS, MARKS
from garrison.cli.page import Page, counted, plain, sentence
from garrison.fleet.apply import Applied
from garrison.fleet.view import Outcome
from garrison.store.records import ActionState

__all__ = ["show_applied", "show_interrupted"]

_MOST = 12


def show_applied(applied: Applied, page: Page, *, continued: bool = False) -> None:
    """`continued`: what is owed is told by what comes next."""
    if not applied.confirmed:
        page.line("Nothing was done.")
        return
    if applied.command is None:
        return
    page.blank()
    if not applied.outcomes:
        page.line(("✓ ", "green"), "recorded; nothing had to be sent to a target")
        return
    _done(applied.outcomes, page)
    _failed(applied.failed, page)
    if not continued:
        _owed(applied.owed, page)


def show_interrupted(
    outcomes: Sequence[Outcome], page: Page, *, under_way: int = 0, untouched: int = 0, begun: bool, again: str
) -> None:
    """After Ctrl-C: what is done, what is not, and how to go on.

    Args:
        under_way: actions that were cut short.
        untouched: actions without an outcome that were not begun.
        begun: whether the intention is on record.
    """
    if not begun:
        page.blank()
        page.line(("interrupted", "bold yellow"), ": nothing was begun.")
        return
    done = sum(one.state is ActionState.DONE for one in outcomes)
    failed = sum(one.state is ActionState.FAILED for one in outcomes)
    owed = len(outcomes) - done - failed + untouched
    words = [f"{done:,} done"] + ([f"{failed:,} failed"] if failed else [])
    words += [f"{owed:,} still owed"] if owed else []
    words += [f"{under_way:,} cut short, which the next command settles"] if under_way else []
    page.line(("interrupted", "bold yellow"), f": {', '.join(words)}.")
    ways = f"What is declared is on record: `{again}` goes on from here, and so does `garrison agent`."
    page.line("  ", ("→ ", "dim"), ways)


def _done(outcomes: Sequence[Outcome], page: Page) -> None:
    done = [one for one in outcomes if one.state is ActionState.DONE]
    if not done:
        return
    counts = Counter(one.action.kind for one in done)
    words = ", ".join(f"{counts[kind]:,} {DONE_WORDS[kind]}" for kind in MARKS if counts[kind])
    where = counted(len({one.action.target for one in done}), "target")
    page.line(("✓ ", "green"), (words, "bold"), f" on {where}")
    gaps = [one.gap_ms for one in done if one.gap_ms is not None]
    if gaps:
        page.line("  ", (f"names were away for at most {max(gaps):.0f} ms while they were updated", "dim"))


def _failed(failed: Sequence[Outcome], page: Page) -> None:
    if not failed:
        return
    page.line(("✗ ", "bold red"), (f"{len(failed):,} failed", "bold red"))
    for hint, group in _by_hint(failed[:_MOST]).items():
        for one in group:
            head = Text.assemble("  ", (f"{plain(one.action.target)}/{plain(one.action.name)}", "bold"), "  ")
            page.entry(head, Text(plain(one.failure.message) if one.failure else "failed"))
        if hint:
            page.line("    ", ("→ ", "dim"), hint)
    if len(failed) > _MOST:
        page.line("  ", (f"… and {len(failed) - _MOST:,} more (`garrison history` or --json)", "dim"))


def _by_hint(failed: Sequence[Outcome]) -> dict[str | None, list[Outcome]]:
    """What has one way out stands together, above it."""
    found: dict[str | None, list[Outcome]] = {}
    for one in failed:
        found.setdefault(one.failure.hint if one.failure else None, []).append(one)
    return found


def _owed(owed: Sequence[Outcome], page: Page) -> None:
    if not owed:
        return
    targets = sorted({one.action.target for one in owed})
    page.line(
        ("⊘ ", "yellow"),
        (f"{len(owed):,} owed", "yellow"),
        f" on {counted(len(targets), 'target')}: {sentence(targets)}",
    )
    ways = "Done by the next `garrison apply`, by `garrison apply --watch`, or by `garrison agent`, once they answer."
    page.line("  ", ("→ ", "dim"), ways)
