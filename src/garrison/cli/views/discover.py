"""Rendering of `garrison discover`, target by target."""

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from garrison.cli.views.alike import alike, reach_words
from garrison.cli.views.not_asked import next_step
from garrison.cli.views.page import Page, counted, plain
from garrison.fleet.operations.discover import Discovered
from garrison.fleet.values.observation import Cause

__all__ = ["show_discovered"]


def show_discovered(found: Sequence[Discovered], page: Page) -> None:
    """Print the models and unmanaged adapters of each target, then the totals."""
    if not found:
        page.line(
            "no targets on record; apply a manifest with `garrison apply`, or look at a server with "
            "`garrison discover --target http://HOST:8000`"
        )
        return
    said = {one.target.name: f"{one.seen.cause}: {one.seen.detail}" for one in found if not one.seen.known}
    groups = alike(said)
    many = {name for group in groups if len(group.names) > 1 for name in group.names}
    for one in found:
        if one.target.name not in many:
            _target(one, page)
    for group in groups:
        if len(group.names) > 1:
            page.entry(Text.assemble(("? ", "yellow"), (group.title, "bold"), "  "),
                       Text(f"{plain(group.said)}: {group.listed}", "yellow"))  # fmt: skip
            if group.step:
                page.line("    ", ("→ ", "dim"), (group.step, "dim"))
    counts = Counter(reach_words(one.seen.cause) for one in found if not one.seen.known)
    unmanaged = sum(len(one.unmanaged) for one in found)
    away = "".join(f", {counts[word]:,} {word}" for word in ("out of reach", "not usable", "not asked") if counts[word])
    page.line((f"{counted(len(found), 'target')}{away}; {counted(unmanaged, 'unmanaged adapter')}", "bold"))
    if any(one.unmanaged for one in found if one.known):
        page.line(("`garrison extract --query status:unmanaged` writes a manifest for them", "dim"))


def _target(one: Discovered, page: Page) -> None:
    name = plain(one.target.name)
    address = "" if one.target.base_url == one.target.name else f"  {plain(one.target.base_url)}"
    if not one.seen.known:
        local = one.seen.cause is Cause.LOCAL
        why = f"{'not asked' if local else one.seen.cause}: {one.seen.detail}"
        page.entry(Text.assemble(("? ", "yellow"), (name, "bold"), (address, "dim"), "  "), Text(plain(why), "yellow"))
        if step := next_step(f"{one.seen.cause}: {one.seen.detail}"):
            page.line("    ", ("→ ", "dim"), (step, "dim"))
        return
    page.entry(Text.assemble(("✓ ", "green"), (name, "bold")), Text(address, "dim"))
    for model in one.models:
        page.entry(Text("    model      "), Text(f"{plain(model.name)}  {plain(model.root or '')}".rstrip()))
    for adapter in one.unmanaged:
        path = f"{plain(adapter.name)}  {plain(adapter.root or '')}  on {plain(adapter.parent or '')}"
        page.entry(Text("    unmanaged  ", "cyan"), Text(path))
    managed = len(one.seen.adapters) - len(one.unmanaged)
    if managed:
        page.line("    ", (f"and {counted(managed, 'managed adapter')}", "dim"))
