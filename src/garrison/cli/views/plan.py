"""Rendering of a plan: actions with reasons by target, then conflicts, then targets that could not be observed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from rich.text import Text

from garrison.cli.views.age import ago
from garrison.cli.views.alike import MANY, alike, counted_unknown, reach_words
from garrison.cli.views.glyphs import CONFLICT, MARKS, OWED, mark_of
from garrison.cli.views.page import Page, counted, plain, sentence
from garrison.fleet.values.cures import WHEN_SEEN, WHEN_USABLE
from garrison.fleet.values.failure import cause_and_detail
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind
from garrison.fleet.values.plan import Action, ActionKind, Change, Plan, TargetChange

__all__ = ["PlanFacts", "show_counts", "show_plan"]

_MOST_PER_KIND = 12
_MOST_TARGETS = 8
_MOST_NAMES = 12
"""Targets that are named where the same is done at many."""
_NAME_WIDTH = 28
_TARGET_GLYPHS = {"create": ("+", "new", "green"), "update": ("✎", "changed", "yellow"), "delete": ("✕", "gone", "red")}
_INSTANCE_GLYPHS = {
    InstanceKind.CREATE: ("+", "new", "green"),
    InstanceKind.UPDATE: ("✎", "changed", "yellow"),
    InstanceKind.DELETE: ("✕", "gone", "red"),
    InstanceKind.CONFLICT: (CONFLICT.glyph, "conflict", CONFLICT.style),
}


_UNKNOWN = (
    ("not asked", "The targets themselves may be fine", "then"),
    ("out of reach", "Their silence proves nothing", "they answer again"),
    ("not usable", "What they answer proves nothing", "that is corrected"),
)
"""Why targets are unknown, what that means, and what their owed actions wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What the view shows beside the plan itself.

    Attributes:
        last_seen: when each target was last seen; None for never.
        addresses: base URLs by target.
        insecure: targets whose certificates are not verified.
        everything: do not truncate, however long the plan is.
        place: the server that made the plan; None for this process.
    """

    now: datetime
    last_seen: Mapping[str, datetime | None] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    everything: bool = False
    place: str | None = None


def show_plan(plan: Plan, page: Page, facts: PlanFacts) -> None:
    """Print the whole plan, with sections that have nothing to show left out."""
    _header(plan, page)
    _instances(plan.instances, page, facts)
    _targets(plan.targets, page, facts)
    _actions(plan, page, facts)
    _conflicts(plan.conflicts, page, facts)
    _unknown(plan, page, facts)
    _warnings(plan, page, facts)


def show_counts(plan: Plan, page: Page) -> None:
    """Print how many actions there are of each kind: `+ 3 create  ✎ 1 update  = 12 keep`."""
    counts = plan.counts()
    marks = [(mark, counts.get(str(kind), 0)) for kind, mark in MARKS.items()]
    marks += [(OWED, counts.get("owed", 0)), (CONFLICT, counts.get("conflict", 0))]
    parts = [Text(f"{mark.glyph} {number:,} {mark.word}", mark.style) for mark, number in marks if number]
    if parts:
        page.flow(Text("  "), parts)


def _header(plan: Plan, page: Page) -> None:
    title = Text.assemble(("plan", "bold"), "  ", plain(plan.stack), ("  " + plan.mode, "dim"))
    page.heading(title)
    show_counts(plan, page)
    if plan.mode == "destroy" and not plan.actions:
        page.line("  ", "The stack owns nothing to unload.")
    elif plan.empty and not plan.conflicts:
        # Not green while a target is unknown: nothing proves that it serves what was declared.
        declares = plan.actions or plan.instances
        what = "everything is as declared" if declares else "the stack declares and owns no adapters"
        causes = [_cause(name, text).partition(": ")[0] for name, text in plan.unknown.items()]
        tail = f", as far as can be seen: {counted_unknown(causes)}" if causes else ""
        page.line("  ", (f"No changes needed: {what}{tail}.", "green" if not plan.unknown else "yellow"))


def _instances(changes: Sequence[InstanceChange], page: Page, facts: PlanFacts) -> None:
    changed = [one for one in changes if one.kind is not InstanceKind.UNCHANGED]
    if not changed:
        return
    page.blank()
    page.line(("instances", "bold"))
    shown = changed if facts.everything else changed[:_MOST_PER_KIND]
    width = min(_NAME_WIDTH, max(len(one.name) for one in shown))
    for one in shown:
        glyph, word, style = _INSTANCE_GLYPHS[one.kind]
        head = Text.assemble("  ", (f"{glyph} {word:<8}", style), "  ", f"{plain(one.name):<{width}}  ")
        page.entry(head, _instance_note(one))
        indent = Text(" " * 14)
        for change in one.changes:
            page.entry(indent + Text(f"{plain(change.field)}  "), _arrow(change))
        if one.failure and one.failure.hint:
            page.entry(indent + Text("→ ", "dim"), Text(plain(one.failure.hint), "dim"))
    _more(len(changed) - len(shown), "instance", page)


def _instance_note(one: InstanceChange) -> Text:
    where = f"  on {plain(one.node)}" if one.node else ""
    if one.failure:
        return Text(plain(one.failure.message), "red")
    if one.kind is not InstanceKind.UPDATE:
        state = f"  ({one.state})" if one.kind is InstanceKind.DELETE else ""
        return Text(plain(one.summary) + where + state, "dim")
    said = "taken over; " if one.adopted else ""
    if one.needs_restart:
        return Text.assemble((f"{said}restarts its engine", "yellow"), (where, "dim"))
    return Text(f"{said}no restart, it is {one.state}{where}", "dim")


def _targets(changes: Sequence[TargetChange], page: Page, facts: PlanFacts) -> None:
    changed = [one for one in changes if one.kind != "keep"]
    if not changed:
        return
    page.blank()
    page.line(("targets", "bold"))
    shown = changed if facts.everything else changed[:_MOST_TARGETS]
    width = min(_NAME_WIDTH, max(len(one.name) for one in shown))
    for one in shown:
        glyph, word, style = _TARGET_GLYPHS[one.kind]
        head = Text.assemble("  ", (f"{glyph} {word:<8}", style), "  ", f"{plain(one.name):<{width}}  ")
        page.entry(head, Text("; ").join([_target_change(one, change) for change in one.changes]))
    _more(len(changed) - len(shown), "target", page)


def _target_change(target: TargetChange, change: Change) -> Text:
    if target.kind == "create":
        return Text(plain(change.after or ""), "dim")
    return Text.assemble(f"{change.field} ", _arrow(change))


def _actions(plan: Plan, page: Page, facts: PlanFacts) -> None:
    """Print what is done alike at many targets by adapter, then the other actions by target.

    Keeps, conflicts, and actions that wait for a target that is unknown have sections of their own, or none.
    """
    work = [
        action
        for action in plan.actions
        if action.kind is not ActionKind.KEEP and not action.conflict and not _waits(action, plan)
    ]
    blocks, work = _blocks(work, facts)
    left = Counter[ActionKind]()
    room = _MOST_PER_KIND
    for targets, groups in blocks.items():
        if room > 0:
            _block(targets, [group[0] for group in groups[:room]], page)
        for group in groups[max(0, room) :]:
            left[group[0].kind] += len(group)
        room -= len(groups)
    shown, more = _bounded(work, facts)
    left += more
    width = min(_NAME_WIDTH, max((len(action.name) for action in shown), default=0))
    for target, actions in groupby(shown, key=lambda action: action.target):
        page.blank()
        _target_heading(target, page, facts)
        group = list(actions)
        for action in group:
            _action(action, width, page)
        _ways(group, page)
    if left:
        page.blank()
        for kind, mark in MARKS.items():
            if not (number := left[kind]):
                continue
            page.line(
                "  ", (mark.glyph, mark.style), f" … and {number:,} more {mark.word} (--all shows them, or --json)"
            )
    if any(action.kind is ActionKind.DELETE for action in plan.actions):
        page.blank()
        page.line("  ", ("Undeclared adapters are never touched.", "dim"))


def _blocks(work: Sequence[Action], facts: PlanFacts) -> tuple[dict[tuple[str, ...], list[list[Action]]], list[Action]]:
    """Return the actions that are alike at many targets, by these targets, and the others.

    Where everything is shown, nothing is put together. A target whose certificate is not verified stays by itself.
    """
    if facts.everything:
        return {}, list(work)
    groups: defaultdict[object, list[Action]] = defaultdict(list)
    for action in work:
        if action.target not in facts.insecure:
            groups[_likeness(action)].append(action)
    blocks: dict[tuple[str, ...], list[list[Action]]] = {}
    for group in groups.values():
        if len(group) >= MANY:
            blocks.setdefault(tuple(action.target for action in group), []).append(group)
    together = {id(action) for same in blocks.values() for group in same for action in group}
    return blocks, [action for action in work if id(action) not in together]


def _likeness(action: Action) -> object:
    """Return what two actions have in common if they are shown alike."""
    failure = (action.failure.message, action.failure.hint) if action.failure else None
    return (
        action.kind,
        action.name,
        action.reason,
        action.changes,
        action.way_reason,
        _tag(action),
        action.waits,
        failure,
    )


def _block(targets: Sequence[str], actions: Sequence[Action], page: Page) -> None:
    """Print what is done alike at many targets, and which these are."""
    page.blank()
    page.heading(Text(counted(len(targets), "target"), "bold"))
    page.entry(Text("  "), Text(sentence(targets, _MOST_NAMES), "dim"))
    width = min(_NAME_WIDTH, max(len(action.name) for action in actions))
    for action in actions:
        _action(action, width, page)
    _ways(actions, page)


def _bounded(work: Sequence[Action], facts: PlanFacts) -> tuple[list[Action], Counter[ActionKind]]:
    """Return the first actions of each kind, and how many of each kind are left out."""
    if facts.everything:
        return list(work), Counter()
    taken: Counter[ActionKind] = Counter()
    shown, left = [], Counter[ActionKind]()
    for action in work:
        if taken[action.kind] < _MOST_PER_KIND:
            taken[action.kind] += 1
            shown.append(action)
        else:
            left[action.kind] += 1
    return shown, left


def _target_heading(target: str, page: Page, facts: PlanFacts) -> None:
    title = Text(plain(target), "bold")
    if address := facts.addresses.get(target):
        title.append(f"  {plain(address)}", "dim")
    if target in facts.insecure:
        title.append("  INSECURE: its certificate is not verified", "bold red")
    page.heading(title)


def _action(action: Action, width: int, page: Page) -> None:
    mark = mark_of(action)
    reason = _reason(action)
    if action.kind is ActionKind.REPLACE:
        _card(action, reason, page)
        return
    head = Text.assemble(
        "  ", (f"{mark.glyph} {mark.word:<7}", mark.style), "  ", (f"{plain(action.name):<{width}}", "bold")
    )
    page.entry(head + Text("  "), reason)
    indent = Text(" " * 13)
    for change in action.changes:
        page.entry(indent + Text(f"{change.field}  "), _arrow(change))
    if action.failure:
        page.entry(indent, Text(plain(action.failure.message)))
        if action.failure.hint:
            page.entry(indent + Text("→ ", "dim"), Text(plain(action.failure.hint), "dim"))


def _ways(actions: Sequence[Action], page: Page) -> None:
    """Print how actions are carried out, once for all actions of a target that share the way."""
    shared: defaultdict[str, list[str]] = defaultdict(list)
    for action in actions:
        if action.way_reason and action.kind is not ActionKind.REPLACE:
            shared[action.way_reason].append(action.name)
    for reason, names in shared.items():
        whose = f"{sentence(names)}: " if len(shared) > 1 else ""
        page.line("  ", ("how      ", "dim"), "  ", (whose + reason, "dim"))


def _reason(action: Action) -> Text:
    tags = Text(f"{tag}  " if (tag := _tag(action)) else "", "yellow")
    return tags + Text(plain(action.reason), "dim")


def _tag(action: Action) -> str:
    if action.drift:
        return "drift"
    return "owed" if action.owed and action.on_record else ""


def _card(action: Action, reason: Text, page: Page) -> None:
    """Print a replace as a card: the fields that cannot change in place first, then those that change with them."""
    mark = MARKS[ActionKind.REPLACE]
    renamed = next((change.before for change in action.changes if change.field == "lora_name"), None)
    name = action.name if renamed is None else f"{renamed} → {action.name}"
    title = Text.assemble((f"{mark.text}  ", mark.style), (plain(name), "bold"))
    width = max((len(change.field) for change in action.changes), default=0)
    rows = [
        (Text.assemble((f"{'immutable' if change.immutable else 'set':<9}", "red" if change.immutable else "yellow"),
                       f"  {change.field:<{width}}  "), _arrow(change))
        for change in sorted(action.changes, key=lambda change: not change.immutable)
    ]  # fmt: skip
    rows.append((Text("why        ", "dim"), reason))
    if action.way_reason:
        rows.append((Text("how        ", "dim"), Text(plain(action.way_reason), "dim")))
    page.card(title, rows, style=mark.style, indent=2)


def _arrow(change: Change) -> Text:
    before, after = (plain(value) if value is not None else "–" for value in (change.before, change.after))
    return Text.assemble((before, "red"), (" → ", "dim"), (after, "green"))


def _conflicts(conflicts: Sequence[Action], page: Page, facts: PlanFacts) -> None:
    if not conflicts:
        return
    page.blank()
    page.heading(Text.assemble(("conflicts", CONFLICT.style), ("  nothing is applied until they are resolved", "dim")))
    shown = conflicts if facts.everything else conflicts[:_MOST_PER_KIND]
    for action in shown:
        message = action.failure.message if action.failure else action.reason
        page.line("  ", (f"{CONFLICT.glyph} ", CONFLICT.style), message)
    _more(len(conflicts) - len(shown), "conflict", page)
    for hint in dict.fromkeys(action.failure.hint for action in shown if action.failure and action.failure.hint):
        page.line("    ", ("→ ", "dim"), hint)


def _unknown(plan: Plan, page: Page, facts: PlanFacts) -> None:
    """Print the targets that could not be observed, with what is owed there: those that did not answer, and those whose
    answer proves nothing."""
    if not plan.unknown:
        return
    waiting: defaultdict[str, list[Action]] = defaultdict(list)
    for action in plan.actions:
        if _waits(action, plan):
            waiting[action.target].append(action)
    said = {name: _cause(name, text) for name, text in plan.unknown.items()}
    for title, why, until in _UNKNOWN:
        some = {name: text for name, text in said.items() if reach_words(text.partition(": ")[0]) == title}
        if some:
            _unknown_for(title, some, waiting, page, facts)
            owed = sum(len(waiting[name]) for name in some)
            tail = f"{_stays_owed(owed)} until {until}" if owed else "nothing is owed there"
            page.line("  ", (f"{why}; {tail}.", "dim"))


def _unknown_for(
    title: str, said: Mapping[str, str], waiting: Mapping[str, Sequence[Action]], page: Page, facts: PlanFacts
) -> None:
    """Print targets that are unknown in one way, grouped by cause; the largest groups, and those with the most owed
    actions, first."""
    page.blank()
    page.heading(Text.assemble((title, "bold yellow"), (f"  {counted(len(said), 'target')}", "dim")))
    groups = alike(said, facts.place, everything=facts.everything)
    groups.sort(key=lambda one: (-sum(len(waiting[name]) for name in one.names), one.names))
    shown = groups if facts.everything else groups[:_MOST_TARGETS]
    width = min(_NAME_WIDTH, max(len(one.title) for one in shown))
    mark = "!" if title == "not asked" else "?"
    told: set[str] = set()
    for one in shown:
        head = Text.assemble("  ", (f"{mark} ", "yellow"), (f"{one.title:<{width}}", "bold"), "  ")
        named = f": {one.listed}" if one.listed else ""
        page.entry(head, Text.assemble(one.said + named, (_seen(one.names, facts), "dim")))
        if one.step and one.step not in told:  # below the first that needs it
            told.add(one.step)
            page.line("      ", ("→ ", "dim"), (one.step, "dim"))
        for reason, actions in _by_reason([action for name in one.names for action in waiting[name]]):
            names = sentence(dict.fromkeys(action.name for action in actions))
            page.line("      ", (f"{OWED.glyph} ", OWED.style), f"{counted(len(actions), 'adapter')} {reason}: {names}")
    _more(sum(len(one.names) for one in groups[len(shown) :]), "target", page)


def _seen(names: Sequence[str], facts: PlanFacts) -> str:
    """Return when targets were last seen; of several, only if none of them ever was."""
    times = [facts.last_seen.get(name) for name in names]
    if not any(times):
        return "  never seen"
    return f"  last seen {ago(times[0], facts.now)}" if len(names) == 1 else ""


def _stays_owed(number: int) -> str:
    return f"{counted(number, 'action')} {'stays' if number == 1 else 'stay'} owed"


def _cause(name: str, message: str) -> str:
    """Shorten `target edge-7 is out of reach (refused): …` to `refused: …`; the line names the target already."""
    return plain(cause_and_detail(name, message))


def _by_reason(actions: Iterable[Action]) -> Iterable[tuple[str, list[Action]]]:
    """Group actions by reason, without the condition that holds for all of them."""
    found: defaultdict[str, list[Action]] = defaultdict(list)
    for action in actions:
        found[action.reason.removesuffix(f" {WHEN_SEEN}").removesuffix(f" {WHEN_USABLE}")].append(action)
    return found.items()


def _warnings(plan: Plan, page: Page, facts: PlanFacts) -> None:
    if not plan.warnings:
        return
    page.blank()
    shown = plan.warnings if facts.everything else plan.warnings[:_MOST_TARGETS]
    for text in shown:
        page.line("  ", ("! ", "yellow"), text)
    _more(len(plan.warnings) - len(shown), "warning", page)


def _waits(action: Action, plan: Plan) -> bool:
    """Return whether the action is blocked only because its target could not be observed."""
    return action.kind is ActionKind.BLOCKED and not action.conflict and action.target in plan.unknown


def _more(number: int, what: str, page: Page) -> None:
    if number > 0:
        page.line("  ", (f"… and {counted(number, f'more {what}')} (--all shows them, or --json)", "dim"))
