"""Rendering of a plan: actions with reasons by target, then conflicts, then targets that could not be observed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from rich.text import Text

from garrison.cli.views.age import ago
from garrison.cli.views.glyphs import CONFLICT, MARKS, OWED, mark_of
from garrison.cli.views.not_asked import detail_of, local_hint, next_step
from garrison.cli.views.page import Page, counted, plain, sentence
from garrison.fleet.values.cures import is_silent
from garrison.fleet.values.failure import cause_and_detail
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind
from garrison.fleet.values.plan import Action, ActionKind, Change, Plan, TargetChange

__all__ = ["PlanFacts", "show_counts", "show_plan"]

_MOST_PER_KIND = 12
_MOST_TARGETS = 8
_NAME_WIDTH = 28
_TARGET_GLYPHS = {"create": ("+", "new", "green"), "update": ("✎", "changed", "yellow"), "delete": ("✕", "gone", "red")}
_INSTANCE_GLYPHS = {
    InstanceKind.CREATE: ("+", "new", "green"),
    InstanceKind.UPDATE: ("✎", "changed", "yellow"),
    InstanceKind.DELETE: ("✕", "gone", "red"),
    InstanceKind.CONFLICT: (CONFLICT.glyph, "conflict", CONFLICT.style),
}


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
        tail = f", as far as can be seen: {counted(len(plan.unknown), 'target')} out of reach" if plan.unknown else ""
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
    """Print the actions by target, except keeps, conflicts, and actions that wait for a target out of reach."""
    work = [
        action
        for action in plan.actions
        if action.kind is not ActionKind.KEEP and not action.conflict and not _waits(action, plan)
    ]
    shown, left = _bounded(work, facts)
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
        for kind, number in left.items():
            mark = MARKS[kind]
            page.line(
                "  ", (mark.glyph, mark.style), f" … and {number:,} more {mark.word} (--all shows them, or --json)"
            )
    if any(action.kind is ActionKind.DELETE for action in work):
        page.blank()
        page.line("  ", ("Undeclared adapters are never touched.", "dim"))


def _bounded(work: Sequence[Action], facts: PlanFacts) -> tuple[list[Action], dict[ActionKind, int]]:
    """Return the first actions of each kind, and how many of each kind are left out."""
    if facts.everything:
        return list(work), {}
    taken: Counter[ActionKind] = Counter()
    shown, left = [], Counter[ActionKind]()
    for action in work:
        if taken[action.kind] < _MOST_PER_KIND:
            taken[action.kind] += 1
            shown.append(action)
        else:
            left[action.kind] += 1
    return shown, {kind: left[kind] for kind in MARKS if left[kind]}


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
    tags = Text()
    if action.drift:
        tags.append("drift  ", "yellow")
    elif action.owed and action.on_record:
        tags.append("owed  ", "yellow")
    return tags + Text(plain(action.reason), "dim")


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
    faults = {name: fault for name, said in plan.unknown.items() if (fault := detail_of(_cause(name, said)))}
    if faults:
        _not_asked(faults, waiting, page, facts)
    others = [name for name in plan.unknown if name not in faults]
    silent = [name for name in others if is_silent(_cause(name, plan.unknown[name]).partition(": ")[0])]
    if silent:
        _out_of_reach("out of reach", silent, "Their silence proves nothing", plan, waiting, page, facts)
    if answering := [name for name in others if name not in silent]:
        _out_of_reach("not usable", answering, "What they answer proves nothing", plan, waiting, page, facts)


def _not_asked(
    faults: Mapping[str, str], waiting: Mapping[str, Sequence[Action]], page: Page, facts: PlanFacts
) -> None:
    """Print targets that were not contacted because of a fault on this side, which must be fixed here."""
    page.blank()
    page.heading(Text.assemble(("not asked", "bold yellow"), (f"  {counted(len(faults), 'target')}", "dim")))
    names = sorted(faults) if facts.everything else sorted(faults)[:_MOST_TARGETS]
    width = min(_NAME_WIDTH, max(len(name) for name in names))
    for name in names:
        head = Text.assemble("  ", ("! ", "yellow"), (f"{plain(name):<{width}}", "bold"), "  ")
        page.entry(head, Text(f"not asked: {faults[name]}"))
        page.line("      ", ("→ ", "dim"), (local_hint(faults[name], facts.place), "dim"))
    _more(len(faults) - len(names), "target", page)
    if owed := sum(len(waiting[name]) for name in faults):
        page.line("  ", (f"{_stays_owed(owed)} until then.", "dim"))


def _out_of_reach(
    title: str,
    away: Sequence[str],
    why: str,
    plan: Plan,
    waiting: Mapping[str, Sequence[Action]],
    page: Page,
    facts: PlanFacts,
) -> None:
    """Print targets that did not answer usefully, those with the most owed actions first."""
    page.blank()
    page.heading(Text.assemble((title, "bold yellow"), (f"  {counted(len(away), 'target')}", "dim")))
    names = sorted(away, key=lambda name: (-len(waiting[name]), name))
    shown = names if facts.everything else names[:_MOST_TARGETS]
    width = min(_NAME_WIDTH, max(len(name) for name in shown))
    told: set[str] = set()
    for name in shown:
        seen = facts.last_seen.get(name)
        when = f"last seen {ago(seen, facts.now)}" if seen else "never seen"
        head = Text.assemble("  ", ("? ", "yellow"), (f"{plain(name):<{width}}", "bold"), "  ")
        page.entry(head, Text.assemble(_cause(name, plan.unknown[name]), (f"  {when}", "dim")))
        step = next_step(_cause(name, plan.unknown[name]))
        if step and step not in told:  # below the first target that needs it
            told.add(step)
            page.line("      ", ("→ ", "dim"), (step, "dim"))
        for reason, actions in _by_reason(waiting[name]):
            said = f"{counted(len(actions), 'adapter')} {reason}: {sentence(action.name for action in actions)}"
            page.line("      ", ("⊘ ", "yellow"), said)
    _more(len(names) - len(shown), "target", page)
    owed = sum(len(waiting[name]) for name in away)
    until = "they answer again" if title == "out of reach" else "that is corrected"
    tail = f"{_stays_owed(owed)} until {until}" if owed else "nothing is owed there"
    page.line("  ", (f"{why}; {tail}.", "dim"))


def _stays_owed(number: int) -> str:
    return f"{counted(number, 'action')} {'stays' if number == 1 else 'stay'} owed"


def _cause(name: str, message: str) -> str:
    """Shorten `target edge-7 is out of reach (refused): …` to `refused: …`; the line names the target already."""
    return plain(cause_and_detail(name, message))


def _by_reason(actions: Iterable[Action]) -> Iterable[tuple[str, list[Action]]]:
    """Group actions by reason, without the condition that holds for all of them."""
    found: defaultdict[str, list[Action]] = defaultdict(list)
    for action in actions:
        found[action.reason.removesuffix(" when the target is seen again")].append(action)
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
