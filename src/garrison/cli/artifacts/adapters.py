"""`garrison adapters`: import, list, show, verify, remove, gc."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from garrison.base.exit_codes import ExitCode
from garrison.base.values import size_text
from garrison.cli.artifacts.views.verification import print_verification
from garrison.cli.asker import confirm
from garrison.cli.json_answer import answer
from garrison.cli.needs.here import Force, files_are_needed, stacks_need, unless_needed
from garrison.cli.options import Json, settings
from garrison.cli.options import app as make_app
from garrison.cli.views.table import print_facts, print_table
from garrison.cli.views.transfer import choose
from garrison.models.adapters.adapter import AdapterInfo
from garrison.models.adapters.judge import refusal, serving_engine
from garrison.models.adapters.library import (
    find_adapter,
    import_adapter,
    list_adapters,
    remove_adapter,
    show_adapter,
    verify_adapter,
)
from garrison.models.layout import Layout

app = make_app("Import, list, show, verify and remove LoRA adapters.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the adapter.")]


@app.command("import")
def import_(
    origin: Annotated[
        Path, typer.Argument(metavar="DIR|FILE|TAR", help="A directory of PEFT or mlx-lm, a .gguf file, or a tar.")
    ],
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="The name to give it.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another adapter of that name.")] = False,
    move: Annotated[bool, typer.Option("--move", help="Move instead of copying.")] = False,
    json: Json = False,
) -> int:
    """Check an adapter (config, rank, modules, shapes) and import it."""
    with choose(json_lines=False) as progress:
        done = import_adapter(_layout(), origin, name=name, replacing=replace, move=move, progress=progress)
    if json:
        print(answer({**_info(done.info), "changed": done.changed}))
        return 0
    what = "imported" if done.changed else "already there:"
    print(f"{what} {done.info.name}, rank {done.info.rank}, {size_text(done.info.bytes)}, at {done.info.path}")
    for warning in done.info.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if (found := refusal(done.info, serving_engine(done.info))) is not None:
        print(f"warning: {found.what}", file=sys.stderr)
        print(f"  → {found.hint}", file=sys.stderr)
    if done.kept:
        print(f"the directory that was there before is kept at {done.kept}", file=sys.stderr)
    return 0


@app.command("list")
def list_(json: Json = False) -> int:
    """List the imported adapters; broken ones with the reason."""
    entries = list_adapters(_layout())
    if json:
        body = [
            {
                "name": entry.name,
                "path": str(entry.path),
                "bytes": entry.bytes,
                "valid": entry.valid,
                "reason": entry.reason,
            }
            for entry in entries
        ]
        print(answer({"adapters": body}))
        return 0
    rows = [
        (
            entry.name,
            str(entry.info.rank) if entry.info else "–",
            entry.info.base_model or "–" if entry.info else "–",
            size_text(entry.bytes),
            entry.reason or "ok",
        )
        for entry in entries
    ]
    empty = f"no adapters below {_layout().adapters}; `garrison adapters import DIR` imports one"
    print_table(("adapter", "rank", "base model", "size", "state"), rows, empty=empty)
    return 0


@app.command()
def show(name: Name, json: Json = False) -> int:
    """Show everything about one adapter."""
    info = show_adapter(_layout(), name)
    body = {**_info(info), "digest": info.digest()}
    if json:
        print(answer(body))
        return 0
    print_facts(
        [
            (key.replace("_", " "), ", ".join(value) or None if isinstance(value, list) else value)
            for key, value in body.items()
        ]
    )
    return 0


@app.command()
def verify(name: Name, json: Json = False) -> int:
    """Hash every file and compare with the digests on record; record them if there are none.

    Exit code 11 if a file changed or is missing.
    """
    with choose(json_lines=False) as progress:
        found = verify_adapter(_layout(), name, progress=progress)
    return print_verification(found, json=json)


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    force: Force = False,
    json: Json = False,
) -> int:
    """Remove an adapter from disk.

    One that a stack, an instance or an engine of this machine needs stays, unless --force says otherwise: an engine
    that still serves it dies at the next request for it.
    """
    layout = _layout()
    entry = find_adapter(layout, name)
    unless_needed(entry.name, lambda: files_are_needed(entry.path) + stacks_need(entry.path), force=force)
    if not yes:
        confirm(f"Remove {entry.name} at {entry.path}?")
    gone = remove_adapter(layout, name)
    print(answer({"name": gone.name, "path": str(gone.path)}) if json else f"removed {gone.name}")
    return 0


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
    json: Json = False,
) -> int:
    """Free space in the adapter stores.

    Removes what no target serves, last served or should get. Imported adapters stay.
    """
    from contextlib import closing

    from garrison.base.clock import SystemClock
    from garrison.cli.views.adapter_gc import print_collected
    from garrison.fleet.artifacts.gc import collect_all
    from garrison.store.sql.store import open_store

    clock = SystemClock()
    with closing(open_store(settings("fleet").database)) as store:
        done = collect_all(store, _layout().data_dir, clock, dry_run=dry_run)
    code = ExitCode.INVALID if any(one.refused for one in done) else ExitCode.OK
    if json:
        print(answer({"dry_run": dry_run, "stores": [one.to_json() for one in done]}, code=code))
    else:
        print_collected(done, dry_run=dry_run, now=clock.now())
    return code


def _layout() -> Layout:
    return Layout.from_settings(settings("model"))


def _info(info: AdapterInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "path": str(info.path),
        "format": info.format,
        "engine": serving_engine(info),
        "peft_type": info.peft_type,
        "rank": info.rank,
        "max_rank": info.max_rank,
        "alpha": info.alpha,
        "target_modules": list(info.target_modules),
        "base_model": info.base_model,
        "dtype": info.dtype,
        "bytes": info.bytes,
        "refused_by_vllm": list(info.refused_by_vllm),
        "warnings": list(info.warnings),
    }
