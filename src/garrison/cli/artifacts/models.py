"""`garrison models`: import, list, show, verify, remove."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from garrison.base.values import size_text
from garrison.cli.artifacts.views.verification import print_verification
from garrison.cli.asker import confirm
from garrison.cli.json_answer import answer
from garrison.cli.needs.here import Force, files_are_needed, unless_needed
from garrison.cli.options import Json, settings
from garrison.cli.options import app as make_app
from garrison.cli.views.table import print_facts, print_table
from garrison.cli.views.transfer import choose
from garrison.models.layout import Layout
from garrison.models.library import (
    ModelEntry,
    find_model,
    import_model,
    list_models,
    remove_model,
    removed_path,
    show_model,
    verify_model,
)

app = make_app("Import, list, show, verify and remove models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name, id or path of the model.")]


@app.command("import")
def import_(
    origin: Annotated[Path, typer.Argument(metavar="DIR|TAR", help="A directory, a tar, or a .gguf file.")],
    name: Annotated[str | None, typer.Option("--as", metavar="ORG/NAME", help="The id to give it.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another model of that name.")] = False,
    move: Annotated[bool, typer.Option("--move", help="Move instead of copying.")] = False,
    skip_tokenizer: Annotated[
        bool, typer.Option("--skip-tokenizer-check", help="Accept a model without tokenizer files.")
    ] = False,
    json: Json = False,
) -> int:
    """Check a model and import it; from then on it resolves by name, without a network."""
    with choose(json_lines=False) as progress:
        done = import_model(
            _layout(), origin, model_id=name, replacing=replace, move=move, skip_tokenizer=skip_tokenizer,
            progress=progress,
        )  # fmt: skip
    if json:
        print(answer({"model_id": done.model_id, "path": str(done.path), "changed": done.changed}))
        return 0
    what = "imported" if done.changed else "already there:"
    print(f"{what} {done.model_id}, {size_text(done.bytes)}, at {done.path}")
    for remark in done.remarks:
        print(f"note: {remark}", file=sys.stderr)
    if done.kept:
        print(f"the directory that was there before is kept at {done.kept}", file=sys.stderr)
    return 0


@app.command("list")
def list_(json: Json = False) -> int:
    """List the models below the models directory; broken ones with the reason."""
    entries = list_models(_layout())
    if json:
        print(answer({"models": [_entry(entry) for entry in entries]}))
        return 0
    rows = [
        (entry.model_id, entry.source, size_text(entry.bytes), entry.format or "–", entry.reason or "ok")
        for entry in entries
    ]
    empty = f"no models below {_layout().root}; `garrison models import DIR` imports one"
    print_table(("model", "source", "size", "format", "state"), rows, empty=empty)
    return 0


@app.command()
def show(name: Name, json: Json = False) -> int:
    """Show everything about one model."""
    details = show_model(_layout(), name)
    info: dict[str, Any] = {}
    if details.info is not None:
        from dataclasses import asdict

        info = asdict(details.info)
    if json:
        body = {**_entry(details.entry), "info": info or None, "digests_recorded": details.digests_recorded}
        body["remarks"] = list(details.remarks)
        print(answer(body))
        return 0
    entry = details.entry
    described = [(key.replace("_", " "), value) for key, value in info.items() if not isinstance(value, dict)]
    on_record = "on record" if details.digests_recorded else "not on record; `garrison models verify` records them"
    facts = [
        ("model", entry.model_id),
        ("state", entry.reason or "ok"),
        ("path", entry.path),
        ("source", entry.source),
        ("revision", entry.revision),
        ("size", size_text(entry.bytes)),
        *((name, value) for name, value in described if name not in ("path", "format")),
        ("digests", on_record),
        *(("note", remark) for remark in details.remarks),
    ]
    print_facts(facts)
    return 0


@app.command()
def verify(name: Name, json: Json = False) -> int:
    """Hash every file and compare with the digests on record; record them if there are none.

    Exit code 11 if a file changed or is missing.
    """
    with choose(json_lines=False) as progress:
        found = verify_model(_layout(), name, progress=progress)
    return print_verification(found, json=json)


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    force: Force = False,
    json: Json = False,
) -> int:
    """Remove a model from disk.

    One that an engine or an instance of this machine needs stays, unless --force says otherwise.
    """
    layout = _layout()
    entry = find_model(layout, name)
    needs = partial(files_are_needed, removed_path(entry), (entry.name, entry.model_id))
    unless_needed(entry.model_id, needs, force=force)
    if not yes:
        confirm(f"Remove {entry.model_id}, {size_text(entry.bytes)}, at {entry.path}?")
    gone = remove_model(layout, name)
    print(answer(_entry(gone)) if json else f"removed {gone.model_id}, {size_text(gone.bytes)}")
    return 0


def _layout() -> Layout:
    return Layout.from_settings(settings("model"))


def _entry(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "model_id": entry.model_id,
        "source": entry.source,
        "path": str(entry.path),
        "revision": entry.revision,
        "bytes": entry.bytes,
        "format": entry.format,
        "valid": entry.valid,
        "reason": entry.reason,
    }
