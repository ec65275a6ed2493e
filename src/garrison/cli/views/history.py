"""Rendering of history events, one line each."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from garrison.cli.views.age import utc
from garrison.cli.views.alike import reach_words
from garrison.cli.views.page import Page, counted, plain, sentence, shortened
from garrison.fleet.values import events
from garrison.fleet.values.cures import cure_of, is_silent
from garrison.store.records import Event

__all__ = ["likeness", "show_alike_events", "show_event"]

_WORD_WIDTH = 13
_SUBJECTS = {
    "not served": "it was ",
    "unloaded": "it was ",
    "gone": "it was ",
    "no longer": "it is ",
    "replaced": "it is ",
    "replaces": "it ",
    "makes room": "it ",
    "the ": "",
    "instance ": "",
}
"""What makes a clause of the reason of an action, by how it begins."""
_LOST = (events.UNREACHABLE, events.CHANGED)
"""Events that may say why a target became unknown."""
_STYLES = {
    events.DRIFT: "yellow",
    events.RESTORED: "green",
    events.UNREACHABLE: "yellow",
    events.RECOVERED: "green",
    events.RESTARTED: "cyan",
    events.ACTION_FAILED: "bold red",
    events.ACTION_DONE: "green",
    events.INTERRUPTED: "yellow",
    events.FORGOTTEN: "red",
    events.DESTROYED: "red",
}


def likeness(event: Event) -> tuple[object, ...]:
    """Return what two events have in common if they may be shown as one: kind, stack, what is said, the next step."""
    after = event.after or {}
    step = after.get("hint") or cure_of(event.cause, str(after.get("detail", "")))
    said = after.get("message") if event.kind == events.ACTION_FAILED else _cause(event)
    return event.kind, event.stack, said, step


def show_alike_events(alike: Sequence[Event], page: Page) -> None:
    """Print events that are alike as one line: how many, what is said, the next step, and a few of the names."""
    kind, _, said, step = likeness(alike[0])
    names = list(dict.fromkeys("/".join(part for part in (one.target, one.name) if part) for one in alike))
    word = _word(alike[0])
    head = Text.assemble((f"{utc(alike[0].at)}  ", "dim"), (f"{word:<{_WORD_WIDTH}}", _STYLES.get(str(kind), "")), "  ")
    words = [Text(counted(len(names), "adapter" if alike[0].name else "target"), "bold")]
    words += [Text(shortened(str(said)))] if said else []
    words += [Text(f"→ {shortened(str(step))}", "dim")] if step else []
    words.append(Text(sentence(names), "dim"))
    page.entry(head, Text("  ").join(words))


def _cause(event: Event) -> str:
    """Return the cause; of an action, so that its reason does not read as its result."""
    cause = event.cause or ""
    action, _, reason = cause.partition(": ")
    if event.kind not in (events.ACTION_DONE, events.ACTION_FAILED) or not reason:
        return cause.removesuffix(": ")
    subject = next((words for begins, words in _SUBJECTS.items() if reason.startswith(begins)), None)
    return f"{action}, reason: {reason}" if subject is None else f"{action} because {subject}{reason}"


def _word(event: Event) -> str:
    """Return the kind; of a target that became unknown though it answers, that it is not usable."""
    answers = event.kind == events.UNREACHABLE and not is_silent(event.cause)
    return reach_words(event.cause) if answers else event.kind


def show_event(event: Event, page: Page) -> None:
    """Print time, kind, place, cause and change of an event; for a failed action, its message and next step."""
    word = _word(event)
    place = "/".join(plain(part) for part in (event.target, event.name) if part)
    head = Text.assemble((f"{utc(event.at)}  ", "dim"), (f"{word:<{_WORD_WIDTH}}", _STYLES.get(event.kind, "")), "  ")
    words = [Text(place, "bold")] if place else []
    words += [Text(plain(event.stack), "" if place else "bold")] if event.stack else []
    words += [Text(shortened(_cause(event)))] if event.cause else []
    failed = event.after if event.kind == events.ACTION_FAILED else None
    if failed and failed.get("message"):
        words += [Text(shortened(str(failed["message"])), "red")]
        words += [Text(f"→ {shortened(str(failed['hint']))}", "dim")] if failed.get("hint") else []
    elif event.kind in _LOST and (step := cure_of(event.cause, str((event.after or {}).get("detail", "")))):
        words += [change for change in [_change(event.before, event.after)] if change]
        words += [Text(f"→ {plain(step)}", "dim")]
    else:
        words += [change for change in [_change(event.before, event.after)] if change]
    words += [Text(plain(event.command), "dim")] if event.command else []
    page.entry(head, Text("  ").join(words))


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Text:
    """Format the plain values that differ; nested values are left to `--json`."""
    old, new = before or {}, after or {}
    parts = []
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        if was == now or isinstance(was, Mapping | list) or isinstance(now, Mapping | list):
            continue
        shown = [_shown(name, value) for value in (was, now) if value is not None]
        if not shown:
            continue
        text = " → ".join(shown) if len(shown) == 2 else f"{shown[0]} → –" if now is None and after else shown[0]
        parts.append(Text.assemble((f"{name} ", "dim"), text))
    return Text(", ").join(parts)


def _shown(name: str, value: object) -> str:
    """Format a value. `started_at` is shown as a time: servers report it in seconds since 1970."""
    if name == "started_at" and isinstance(value, int | float):
        try:
            return f"{utc(datetime.fromtimestamp(value, UTC))} UTC"
        except (ValueError, OverflowError, OSError):  # out of the range of datetime
            return str(value)
    return shortened(str(value))
