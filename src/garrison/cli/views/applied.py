"""Rendering of a finished apply: what was done, what failed and the next step, and what is still owed."""

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from garrison.cli.json_answer import answer
from garrison.cli.views.alike import MANY
from garrison.cli.views.glyphs import DONE_WORDS, MARKS, OWED
from garrison.cli.views.page import Page, counted, plain, sentence
from garrison.fleet.operations.apply import Applied
from garrison.fleet.values.cures import is_silent
from garrison.fleet.values.failure import cause_and_detail
from garrison.fleet.values.instance_change import InstanceKind
from garrison.fleet.values.view import Outcome
from garrison.store.records import ActionState

__all__ = ["interrupted_json", "show_applied", "show_interrupted", "show_left"]

_MOST = 12


def show_applied(applied: Applied, page: Page, *, continued: bool = False, place: str | None = None) -> None:
    """Print the result of an apply or a destroy.

    Args:
        continued: leave out owed actions, because the caller continues and reports them itself.
        place: the server that carried it out, which carries out what is owed, too; None for this process.
    """
    if applied.command is None:
        return
    page.blank()
    _instances(applied, page)
    if not applied.outcomes:
        if not applied.instances:
            page.line(("✓ ", "green"), "recorded; no target had to change")
        return
    _done(applied.outcomes, page)
    _failed(applied.failed, page)
    if not continued:
        _unanswered([one for one in applied.owed if one.unanswered], page)
        _owed([one for one in applied.owed if not one.unanswered], page, place)


def show_interrupted(
    outcomes: Sequence[Outcome], page: Page, *, under_way: int = 0, untouched: int = 0, begun: bool, again: str
) -> None:
    """Print what is done and what is not after Ctrl-C, and how to continue.

    Args:
        under_way: number of actions that were interrupted.
        untouched: number of actions that were not started, and so have no outcome.
        begun: whether the declaration was recorded.
        again: the command that continues.
    """
    if not begun:
        page.blank()
        page.line(("interrupted", "bold yellow"), ": nothing was started.")
        return
    done = sum(one.state is ActionState.DONE for one in outcomes)
    failed = sum(one.state is ActionState.FAILED for one in outcomes)
    owed = len(outcomes) - done - failed + untouched
    words = [f"{done:,} done"] + ([f"{failed:,} failed"] if failed else [])
    words += [f"{owed:,} still owed"] if owed else []
    words += [f"{under_way:,} cut short, to be settled by the next command"] if under_way else []
    page.line(("interrupted", "bold yellow"), f": {', '.join(words)}.")
    ways = f"The declaration is recorded: `{again}` continues from here, and so does `garrison agent`."
    page.line("  ", ("→ ", "dim"), ways)


def show_left(place: str, page: Page) -> None:
    """Print that a server elsewhere goes on after Ctrl-C."""
    page.blank()
    page.line(("interrupted", "bold yellow"), f": what was sent to {plain(place)} is carried out there all the same.")
    page.line("  ", ("→ ", "dim"), f"`garrison status --server {plain(place)}` shows what is done and what is owed.")


def interrupted_json(outcomes: Sequence[Outcome], exit_code: int) -> str:
    """Return what `--json` prints after Ctrl-C."""
    body = {
        "code": "interrupted",
        "outcomes": [one.to_json() for one in outcomes],
    }
    return answer(body, code=exit_code)


_INSTANCE_WORDS = {InstanceKind.DELETE: "deleted", InstanceKind.UPDATE: "changed", InstanceKind.CREATE: "created"}


def _instances(applied: Applied, page: Page) -> None:
    done = Counter(one.change.kind for one in applied.instances if one.error is None)
    if done:
        words = ", ".join(
            f"{counted(done[kind], 'instance')} {word}" for kind, word in _INSTANCE_WORDS.items() if done[kind]
        )
        page.line(("✓ ", "green"), (words, "bold"))
    for one in applied.instances:
        if one.error is not None:
            page.line(("✗ ", "red"), f"instance {plain(one.change.name)}: ", plain(one.error))
            if one.hint:
                page.line("  ", ("→ ", "dim"), plain(one.hint))


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
        page.line("  ", (f"names were unavailable for at most {max(gaps):.0f} ms during updates", "dim"))


def _failed(failed: Sequence[Outcome], page: Page) -> None:
    if not failed:
        return
    page.line(("✗ ", "bold red"), (f"{len(failed):,} failed", "bold red"))
    alike: dict[tuple[str, str | None], list[Outcome]] = {}
    for one in failed:
        message = one.failure.message if one.failure else "failed"
        alike.setdefault((message, one.failure.hint if one.failure else None), []).append(one)
    rows = [row for (message, hint), same in alike.items() for row in _failures(message, hint, same)]
    for hint, group in _by_hint(rows[:_MOST]).items():
        for title, message, _, _ in group:
            page.entry(Text.assemble("  ", (title, "bold"), "  "), Text(plain(message)))
        if hint:
            page.line("    ", ("→ ", "dim"), hint)
    if left := sum(number for *_, number in rows[_MOST:]):
        page.line("  ", (f"… and {left:,} more (see `garrison history`, or use --json)", "dim"))


_Row = tuple[str, str, str | None, int]
"""Where, what is wrong, the next step, and how many actions that is."""


def _failures(message: str, hint: str | None, same: Sequence[Outcome]) -> list[_Row]:
    """Return the rows of actions that failed alike: one for all, if they are many."""
    if len(same) < MANY:
        return [(f"{plain(one.action.target)}/{plain(one.action.name)}", message, hint, 1) for one in same]
    names = list(dict.fromkeys(one.action.name for one in same))
    targets = list(dict.fromkeys(one.action.target for one in same))
    title = f"{sentence(names, 2)} on {counted(len(targets), 'target')}"
    return [(title, f"{message}: {sentence(targets)}" if len(targets) > 1 else message, hint, len(same))]


def _by_hint(rows: Sequence[_Row]) -> dict[str | None, list[_Row]]:
    """Group failures by hint, so that each next step is printed once, below its failures."""
    found: dict[str | None, list[_Row]] = {}
    for row in rows:
        found.setdefault(row[2], []).append(row)
    return found


def _unanswered(outcomes: Sequence[Outcome], page: Page) -> None:
    """Print the loads that were not answered in time: nobody knows yet whether they were carried out."""
    if not outcomes:
        return
    targets = sorted({one.action.target for one in outcomes})
    where = f" on {counted(len(targets), 'target')}: {sentence(targets)}"
    page.line(("◐ ", "yellow"), (f"{len(outcomes):,} cut short", "yellow"), where)
    _causes(outcomes, page)
    page.line(
        "  ", ("→ ", "dim"), "The next apply or `garrison agent` sees whether it was done, and else does it again."
    )


def _owed(owed: Sequence[Outcome], page: Page, place: str | None) -> None:
    if not owed:
        return
    targets = sorted({one.action.target for one in owed})
    page.line(
        (f"{OWED.glyph} ", "yellow"),
        (f"{len(owed):,} owed", "yellow"),
        f" on {counted(len(targets), 'target')}: {sentence(targets)}",
    )
    _causes(owed, page)
    who = plain(place) if place else "`garrison apply`, `garrison apply --watch` or `garrison agent`"
    silent = all(one.failure is None or (one.failure.cause and is_silent(one.failure.cause)) for one in owed)
    ways = f"{who} carries them out once the targets answer{'' if silent else ' as they should'}."
    page.line("  ", ("→ ", "dim"), ways)


def _causes(outcomes: Sequence[Outcome], page: Page) -> None:
    causes = _by_cause(outcomes)
    for text, names in list(causes.items())[:_MOST]:
        page.line("  ", f"{sentence(names)}: ", plain(text))
    if len(causes) > _MOST:
        page.line("  ", (f"… and {len(causes) - _MOST:,} more causes (`garrison status`, or --json)", "dim"))


def _by_cause(owed: Sequence[Outcome]) -> dict[str, list[str]]:
    """Group the targets that answered, and whose answer was no use, by the reason and the next step.

    What did not answer is listed above, in the plan. Of causes whose details differ, such as addresses, the first
    detail stands for all.
    """
    found: dict[str, list[str]] = {}
    first: dict[tuple[str | None, str | None], str] = {}
    for one in owed:
        failure = one.failure
        if failure is None or (failure.cause is not None and is_silent(failure.cause)):
            continue
        said = cause_and_detail(one.action.target, failure.message)
        if failure.cause is not None:
            said = first.setdefault((failure.cause, failure.hint), said)
        text = f"{said}  → {failure.hint}" if failure.hint else said
        names = found.setdefault(text, [])
        if one.action.target not in names:
            names.append(one.action.target)
    return found
