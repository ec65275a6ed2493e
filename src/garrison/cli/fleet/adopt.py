"""`garrison adopt`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from garrison.base.errors import UsageError
from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.lock_wait import LockTimeout, once_free
from garrison.cli.fleet.options import Yes
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.cli.views.page import Page
    from garrison.fleet.operations.adopt import Adopted
    from garrison.fleet.values.declaration import AdapterDeclaration

app = make_app("Adopt unmanaged adapters into a stack, unchanged.")

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
    lock_timeout: LockTimeout = 0.0,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Adopt unmanaged adapters into a stack, exactly as they are served.

    Nothing is loaded or unloaded. Prints the lines to add to the manifest;
    without them, the next reconcile unloads the adopted adapters.
    """
    from garrison.cli.fleet.question import confirm
    from garrison.cli.fleet.wiring import Stop, open_operations, run
    from garrison.cli.views.page import Page, counted
    from garrison.cli.views.progress import progress_view
    from garrison.fleet.management.requests import AdoptRequest

    if bool(names) == (query is not None):
        raise UsageError(
            "give either adapter names or --query", hint="For example: garrison adopt edge-2/sql --stack cabinet-7"
        )
    request = AdoptRequest(stack=stack, names=tuple(names or ()), query=query)
    with open_operations() as operations:
        page, stop, fingerprint = Page(), Stop(), None
        view = progress_view(page, stop, lambda _: None, json=json)
        try:
            if not yes:
                found = run(operations.propose_adoption(request, view), stop)
                view.end()
                adapters, fingerprint = found.addition.adapters, found.fingerprint
                if adapters and not json:
                    _show(adapters, stack, page)
                if adapters:
                    confirm(f"Adopt {counted(len(adapters), 'adapter')} into {stack}?", stop, json=json)
            adopting = once_free(lambda: operations.adopt(request, view, fingerprint=fingerprint), lock_timeout, view)
            done = run(adopting, stop)
        finally:
            view.end()
    if json:
        print(answer(done.to_json() | {"manifest": _manifest_body(done)}))
    else:
        if yes and done.command is not None:
            _show(done.addition.adapters, stack, page)
        _show_adopted(done, page)
    return ExitCode.OK


def _show(adapters: "Sequence[AdapterDeclaration]", stack: str, page: "Page") -> None:
    page.line(("adopt", "bold"), f"  into {stack}, unchanged; nothing is sent to the targets")
    width = min(28, max(len(f"{one.target}/{one.lora_name}") for one in adapters))
    for one in adapters[:_MOST]:
        page.line(
            "  ", ("⊕ ", "cyan"), (f"{one.target + '/' + one.lora_name:<{width}}  ", "bold"), (one.lora_path, "dim")
        )
    if len(adapters) > _MOST:
        page.line("  ", (f"… and {len(adapters) - _MOST:,} more", "dim"))


def _show_adopted(done: "Adopted", page: "Page") -> None:
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
