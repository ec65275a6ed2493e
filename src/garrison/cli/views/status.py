"""Rendering of `garrison status`: a summary, then the problems, readable with one target and with thousands."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.text import Text

from garrison.cli.views.age import ago, duration, utc
from garrison.cli.views.alike import MANY, Alike, alike, reach_words
from garrison.cli.views.glyphs import OWED
from garrison.cli.views.not_asked import is_local, local_hint
from garrison.cli.views.page import Page, counted, plain, sentence, shortened
from garrison.fleet.report.agents import MOST_AHEAD, AgentStatus
from garrison.fleet.report.status import AdapterStatus, FleetStatus, StackStatus, TargetStatus

__all__ = ["STATE_LOOKS", "nothing_applied", "show_status", "slow_hint"]

_MOST_ADAPTERS = 12
_MOST_TARGETS = 20
_MOST_STACKS = 20
_NAME_WIDTH = 28
_SLOW_SECONDS = 2.0

STATE_LOOKS = {
    "served": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "missing": ("✕", "red"),
    "drifted": ("≠", "red"),
    "owed": (OWED.glyph, OWED.style),
    "on-demand": ("·", "dim"),
    "unknown": ("?", "yellow"),
}
_TARGET_LOOKS = {
    "reachable": ("✓", "green"),
    "unreachable": ("?", "yellow"),
    "unusable": ("?", "yellow"),
    "new": ("·", "dim"),
}
_TARGET_ORDER = ("unreachable", "unusable", "new", "reachable")
_TARGET_WORDS = {
    "reachable": "reachable",
    "unreachable": "out of reach",
    "unusable": "not usable",
    "new": "never asked",
}
_AWAY = ("unreachable", "unusable")


def show_status(status: FleetStatus, page: Page, *, everything: bool, place: str | None = None) -> None:
    """Print the status.

    Args:
        everything: do not truncate.
        place: the server that looked; None for this process.
    """
    if not status.stacks and not status.targets:
        page.line(nothing_applied(status.destroyed, status.at))
        return
    _summary(status, page)
    _stacks(status, page, everything=everything)
    _targets(status, page, everything=everything, place=place)


def nothing_applied(destroyed: tuple[str, datetime] | None, now: datetime) -> str:
    """Return what to say where nothing is on record: nothing ever was, or it was destroyed."""
    if destroyed is None:
        return "nothing applied yet; run `garrison apply` with a manifest"
    stack, at = destroyed
    return f"nothing is applied: stack {plain(stack)} was destroyed {ago(at, now)}; `garrison apply` begins anew"


def slow_hint(status: FleetStatus, seconds: float) -> str | None:
    """Return how to have the status at once, where targets that do not answer made it slow."""
    if status.cached or seconds < _SLOW_SECONDS or all(one.state == "reachable" for one in status.targets):
        return None
    return f"It took {seconds:.0f} s. `garrison status --cached` asks no target, and shows what was last seen."


def _summary(status: FleetStatus, page: Page) -> None:
    title = Text.assemble(
        ("status", "bold"),
        f"  {counted(len(status.stacks), 'stack')}, {counted(len(status.targets), 'target')}, "
        f"{counted(sum(status.adapters.values()), 'adapter')}",
        ("  as last seen; no target was asked" if status.cached else "", "dim"),
    )
    page.heading(title)
    looks = [
        Text(f"{_TARGET_LOOKS[state][0]} {number:,} {_TARGET_WORDS[state]}", _TARGET_LOOKS[state][1])
        for state in _TARGET_LOOKS
        if (number := sum(one.state == state and not is_local(one.cause) for one in status.targets))
    ]
    if ours := sum(is_local(one.cause) for one in status.targets):
        looks.append(Text(f"! {ours:,} not asked", "yellow"))
    page.flow(Text("  targets   ", "dim"), looks)
    page.flow(Text("  adapters  ", "dim"), _counts(status.adapters) or [Text("none")])
    insecure = [one.name for one in status.targets if one.insecure]
    if insecure:
        warning = f"INSECURE: the certificate of {sentence(insecure)} is not verified"
        page.line("  ", ("! ", "bold red"), (warning, "bold red"))
    _agents(status, page)


def _agents(status: FleetStatus, page: Page) -> None:
    """Print who keeps the fleet, since when, and whether it still does."""
    head = Text("  agent     ", "dim")
    if not status.agents:
        page.entry(head, Text("none runs; `garrison agent` keeps the fleet as applied", "dim"))
        return
    for one in status.agents:
        page.entry(head, _agent(one, status.at))
    if all(one.state != "working" for one in status.agents):
        page.entry(Text("    → ", "dim"), Text("Until `garrison agent` runs again, nothing is repaired.", "dim"))


def _agent(one: AgentStatus, now: datetime) -> Text:
    looked = "no look yet" if one.looked_at is None else f"last look {ago(one.looked_at, now)}"
    if one.looked_at is not None and one.looked_at - now > MOST_AHEAD:
        looked = f"last look {utc(one.looked_at)} UTC"
    kept = f"; keeps {sentence(one.stacks)}" if one.stacks is not None else ""
    if one.state == "working":
        return Text.assemble(
            ("✓ ", "green"),
            plain(f"{one.holder} (pid {one.pid})"),
            (plain(f"  since {utc(one.since)} UTC, {looked}{kept}"), "dim"),
        )
    silent = duration((now - one.alive_at).total_seconds())
    what = f"has been silent for {silent}, and may hang"
    if one.state == "dead":
        what = "was killed"
    elif one.alive_at > now:
        what = f"may hang: its last sign of life is of {utc(one.alive_at)} UTC, so its clock was wrong"
    return Text.assemble(
        ("! ", "yellow"),
        (plain(f"{one.holder} (pid {one.pid}) {what}"), "yellow"),
        (plain(f"; {looked}{kept}"), "dim"),
    )


def _counts(counts: Mapping[str, int]) -> list[Text]:
    return [
        Text(f"{glyph} {counts[state]:,} {state}", style)
        for state, (glyph, style) in STATE_LOOKS.items()
        if counts.get(state)
    ]


# --- stacks


def _stacks(status: FleetStatus, page: Page, *, everything: bool) -> None:
    shown: Sequence[StackStatus] = status.stacks
    if not everything and len(shown) > _MOST_STACKS:
        shown = sorted(shown, key=_calm)[:_MOST_STACKS]
    for stack in shown:
        page.blank()
        _stack(stack, status.at, page, everything=everything)
    if len(status.stacks) > len(shown):
        page.line(
            "  ", (f"… and {counted(len(status.stacks) - len(shown), 'more stack')} (--all, --stack NAME)", "dim")
        )


def _calm(stack: StackStatus) -> bool:
    """Return whether there is nothing to report; such stacks are left out first."""
    return not (stack.writer or stack.interrupted or stack.ending or set(stack.counts) - {"served", "on-demand"})


def _stack(stack: StackStatus, now: datetime, page: Page, *, everything: bool) -> None:
    applied = f"  applied {ago(stack.applied_at, now)} (version {stack.version}), on drift: {stack.on_drift}"
    title = Text.assemble(("stack ", "dim"), (plain(stack.name), "bold"), (applied, "dim"))
    if stack.ending:
        title.append("  being destroyed", "bold red")
    page.heading(title)
    page.flow(Text("  "), _counts(stack.counts) or [Text("no adapters", "dim")])
    if writer := stack.writer:
        who = f"{writer.holder} (pid {writer.pid})"
        age = duration((now - writer.since).total_seconds())
        if writer.dead:
            held = f"was held by {who}, which was killed: {writer.purpose}; the next command settles its actions"
            page.line("  ", ("! ", "yellow"), held)
        else:
            page.line("  ", ("◐ ", "cyan"), f"held by {who} for {age}: {writer.purpose}")
    for one in stack.interrupted:
        text = f"command {one.command} ({one.kind} by {one.by}) was cut short {ago(one.started_at, now)}"
        text += f" by a load timeout on {sentence(one.late)}" if one.late else ""
        page.line("  ", ("! ", "yellow"), f"{text}; the next apply or the agent settles it")
    if everything:
        _rows([[one] for one in stack.adapters], page)
        return
    groups = _together(_alike(one for one in stack.adapters if one.state != "served"))
    _rows(groups[:_MOST_ADAPTERS], page)
    if left := sum(len(group) for group in groups[_MOST_ADAPTERS:]):
        page.line("  ", (f"… and {counted(left, 'more adapter')} (--all shows them, or --json)", "dim"))


def _alike(adapters: Iterable[AdapterStatus]) -> list[list[AdapterStatus]]:
    """Group adapters of one target in the same state for the same reason, the worst state first."""
    found: dict[tuple[int, str, str], list[AdapterStatus]] = {}
    order = list(STATE_LOOKS)
    for one in adapters:
        found.setdefault((order.index(one.state), one.target, one.detail), []).append(one)
    return [found[key] for key in sorted(found)]


def _together(groups: Sequence[list[AdapterStatus]]) -> list[list[AdapterStatus]]:
    """Put together what is in the same state for the same reason at many targets."""
    found: dict[tuple[str, str, str | None], list[list[AdapterStatus]]] = {}
    for group in groups:
        found.setdefault((group[0].state, group[0].detail, group[0].hint), []).append(group)
    return [
        one for same in found.values()
        for one in ([[adapter for group in same for adapter in group]] if len(same) >= MANY else same)
    ]  # fmt: skip


def _rows(groups: Sequence[Sequence[AdapterStatus]], page: Page) -> None:
    places = [_place(group) for group in groups]
    width = min(_NAME_WIDTH, max(map(len, places), default=0))
    for place, group in zip(places, groups, strict=True):
        one = group[0]
        glyph, style = STATE_LOOKS[one.state]
        head = Text.assemble("  ", (f"{glyph} {one.state:<8}", style), f"{place:<{width}}  ")
        targets = list(dict.fromkeys(each.target for each in group))
        named = f": {sentence(targets)}" if len(targets) > 1 else ""
        body = shortened(one.detail or ("" if named else one.path or ""))
        page.entry(
            head, Text(body + named if body else named.removeprefix(": "), "" if one.state == "failed" else "dim")
        )
        if one.hint:
            page.entry(Text("    → ", "dim"), Text(shortened(one.hint), "dim"))


def _place(group: Sequence[AdapterStatus]) -> str:
    first = group[0]
    if len(group) == 1:
        return f"{plain(first.target)}/{plain(first.name)}"
    if len({one.target for one in group}) == 1:
        return f"{plain(first.target)}, {counted(len(group), 'adapter')}"
    targets = counted(len({one.target for one in group}), "target")
    if len({one.name for one in group}) == 1:
        return f"{plain(first.name)} on {targets}"
    return f"{counted(len(group), 'adapter')} on {targets}"


# --- targets


def _targets(status: FleetStatus, page: Page, *, everything: bool, place: str | None) -> None:
    """Print all targets if they are few, else those with problems."""
    few = everything or len(status.targets) <= _MOST_TARGETS
    shown = [one for one in status.targets if few or not one.well or one.insecure]
    calm = len(status.targets) - len(shown)
    away = {one.name: one for one in shown if one.state in _AWAY and not one.insecure}
    said = {one.name: f"{one.cause}: {one.detail}" for one in away.values()}
    groups = [one for one in alike(said, place, everything=everything) if len(one.names) > 1]
    together = {name for group in groups for name in group.names}
    shown = [one for one in shown if one.name not in together]
    if not everything:
        shown = sorted(shown, key=lambda one: (_TARGET_ORDER.index(one.state), one.name))[:_MOST_TARGETS]
    page.blank()
    page.heading(Text("targets", "bold"))
    width = min(_NAME_WIDTH, max((len(one.name) for one in shown), default=0))
    told: set[str] = set()
    for one in shown:
        _target(one, status.at, width, page, place, told)
    for group in groups:
        _away(group, away, status.at, page)
    left = len(status.targets) - len(shown) - len(together) - calm
    if left > 0:
        page.line("  ", (f"… and {counted(left, 'more target')} with problems (--all, or --json)", "dim"))
    if calm:
        page.line("  ", ("✓ ", "green"), (f"{counted(calm, 'target')} reachable, serving everything", "dim"))


def _away(group: Alike, targets: Mapping[str, TargetStatus], now: datetime, page: Page) -> None:
    """Print targets that are unknown for the same reason, and since when the first of them is."""
    head = Text.assemble("  ", ("? ", "yellow"), (group.title, "bold"), "  ")
    times = [at for name in group.names if (at := targets[name].since) is not None]
    since = f" since {utc(min(times))} UTC ({ago(min(times), now)})" if times else ""
    page.entry(head, Text.assemble((plain(group.said), "yellow"), (f"  {group.kind}{since}", "dim")))
    page.line("      ", (group.listed, "dim"))
    if group.step:
        page.line("      ", ("→ ", "dim"), (group.step, "dim"))


def _target(one: TargetStatus, now: datetime, width: int, page: Page, place: str | None, told: set[str]) -> None:
    glyph, style = _TARGET_LOOKS[one.state]
    head = Text.assemble("  ", (f"{glyph} ", style), (f"{plain(one.name):<{width}}", "bold"), "  ")
    page.entry(head, _target_facts(one, now))
    indent = Text(" " * 6)
    if is_local(one.cause):
        page.entry(indent + Text("→ ", "dim"), Text(plain(local_hint(one.detail, place)), "dim"))
    elif one.state in _AWAY and one.hint and one.hint not in told:  # below the first target that needs it
        told.add(one.hint)
        page.entry(indent + Text("→ ", "dim"), Text(plain(one.hint), "dim"))
    if one.insecure:
        page.entry(indent, Text("INSECURE: its certificate is not verified", "bold red"))
    if one.lora_routes is False and one.state == "reachable":
        named = f"{one.cause}: " if one.cause else ""
        page.entry(indent, Text(f"{named}cannot load adapters: start it with --enable-lora and "
                                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment", "yellow"))  # fmt: skip


def _target_facts(one: TargetStatus, now: datetime) -> Text:
    if one.state == "new":
        return Text.assemble("never asked", (f"  {plain(one.base_url)}", "dim"))
    if one.state in _AWAY:
        if is_local(one.cause):
            said = Text(plain(f"not asked: {one.detail}"), "yellow")
            return said.append(f"  last seen {ago(one.last_seen, now)}  {plain(one.base_url)}", "dim")
        since = f"since {utc(one.since)} UTC ({ago(one.since, now)})" if one.since else ""
        seen = f"last seen {ago(one.last_seen, now)}" if one.last_seen else "never seen"
        said = Text(plain(f"{one.cause}: {one.detail}" if one.detail else str(one.cause)), "yellow")
        return said.append(f"  {reach_words(one.cause)} {since}, {seen}  {plain(one.base_url)}", "dim")
    facts = [plain(one.base_url)]
    facts += [plain(one.base)] if one.base else []
    facts += [f"vLLM {plain(one.version)}"] if one.version else []
    text = Text("  ".join(facts), "dim")
    if one.adapters:
        text = Text("   ").join(_counts(one.adapters)).append("  ").append_text(text)
    if one.unmanaged:
        text.append(f"  {len(one.unmanaged):,} unmanaged", "cyan")
    return text.append(f"  seen {ago(one.last_seen, now)}", "dim")
