"""`garrison adopt`."""

import json as json_module
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from garrison.base.errors import UsageError
from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.options import Yes
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.cli.views.page import Page
    from garrison.fleet.operations.adopt import Adopted, Choose
    from garrison.fleet.values.declaration import AdapterDeclaration

app = make_app("Adopt unmanaged adapters into a stack, unchanged.")

_FIELDS = {"name": None, "target": None, "path": None, "base": None}
_MOST = 40


@app.command()
def adopt(
    stack: Annotated[
        str, typer.Option("--stack", "-s", metavar="NAME", help="The stack to adopt into; may be a new one.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|TARGET/NAME", help="Adapters by their served name.", show_default=False),
    ] = None,
    query: Annotated[
        str | None, typer.Option("--query", help="Adopt the unmanaged adapters that match: name, target, path, base.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Adopt unmanaged adapters into a stack, exactly as they are served.

    Nothing is loaded or unloaded. Prints the lines to add to the manifest;
    without them, the next reconcile unloads the adopted adapters.
    """
    from garrison.cli.fleet.question import permission
    from garrison.cli.fleet.wiring import Stop, open_fleet, run
    from garrison.cli.views.page import Page
    from garrison.cli.views.progress import progress_view
    from garrison.fleet.operations.adopt import adopt as adopt_adapters

    if bool(names) == (query is not None):
        raise UsageError(
            "give either adapter names or --query", hint="For example: garrison adopt edge-2/sql --stack cabinet-7"
        )
    with open_fleet() as fleet:
        page, stop = Page(), Stop()
        known = {one.name for one in fleet.store.targets()}
        choose, only = _picked(names, known) if names else (_matching(str(query)), None)
        view = progress_view(page, stop, lambda _: None, json=json)

        def confirm(adapters: "list[AdapterDeclaration]") -> bool:
            view.end()
            if not json:
                _show(adapters, stack, page)
            return permission(f"Adopt {len(adapters):,} into {stack}?", stop, yes=yes, json=json)

        try:
            done = run(adopt_adapters(fleet, stack, choose, view, confirm=confirm, only=only), stop)
        finally:
            view.end()
    if json:
        print(json_module.dumps(done.to_json() | {"manifest": _manifest_body(done)}, ensure_ascii=False))
    else:
        _show_adopted(done, page)
    return ExitCode.OK


def _picked(names: Collection[str], known: Collection[str]) -> "tuple[Choose, set[str] | None]":
    """Build a chooser by name, and the set of targets to observe.

    The set is None, which means all targets, unless every name includes its target.
    """
    targets = {name.partition("/")[0] for name in names if "/" in name and name.partition("/")[0] in known}
    all_named = all("/" in name and name.partition("/")[0] in known for name in names)
    wanted = set(names)
    return (
        lambda one: one.served.name in wanted or f"{one.target}/{one.served.name}" in wanted,
        targets if all_named else None,
    )


def _matching(text: str) -> "Choose":
    """Build a chooser of the unmanaged adapters that match a query."""
    from garrison.fleet.report.query import parse_query

    query = parse_query(text, _FIELDS)
    return lambda one: (
        one.owner is None
        and query.matches(
            {"name": one.served.name, "target": one.target, "path": one.served.root, "base": one.served.parent}
        )
    )


def _show(adapters: "list[AdapterDeclaration]", stack: str, page: "Page") -> None:
    page.line(("adopt", "bold"), f"  into {stack}, unchanged; nothing is sent to the targets")
    width = min(28, max(len(f"{one.target}/{one.lora_name}") for one in adapters))
    for one in adapters[:_MOST]:
        page.line(
            "  ", ("⊕ ", "cyan"), (f"{one.target + '/' + one.lora_name:<{width}}  ", "bold"), (one.lora_path, "dim")
        )
    if len(adapters) > _MOST:
        page.line("  ", (f"… and {len(adapters) - _MOST:,} more", "dim"))


def _show_adopted(done: "Adopted", page: "Page") -> None:
    if not done.confirmed:
        page.line("Nothing was done.")
        return
    if done.already:
        from garrison.cli.views.page import sentence

        page.line(f"already in {done.stack}: {sentence(done.already)}")
    if done.command is None:
        return
    from garrison.fleet.manifest.dump import dump_manifest

    page.line(("✓ ", "green"), (f"{len(done.addition.adapters):,} adopted", "bold"), f" into {done.stack}")
    page.line("  ", ("→ ", "dim"), f"Add this to the manifest of {done.stack}, or its next reconcile will unload them:")
    page.blank()
    _, _, lines = dump_manifest(done.addition).partition("\n\n")
    for line in lines.splitlines():
        page.line(line)


def _manifest_body(done: "Adopted") -> dict[str, Any]:
    from garrison.fleet.manifest.dump import manifest_body

    body = manifest_body(done.addition)
    return {key: value for key, value in body.items() if key in ("targets", "adapters")} if done.command else {}
