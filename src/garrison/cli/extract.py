"""`garrison extract`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from garrison.base.errors import InvalidError
from garrison.cli.inventory import Queries
from garrison.cli.on_record import OnRecord
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

app = make_app("Write a manifest from what is there.")


@app.command(cls=OnRecord)
def extract(
    query: Queries = None,
    stack: Annotated[
        str | None,
        typer.Option("--stack", "-s", metavar="NAME", help="The stack it declares; one on record, or a new one."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to. Default: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    json: Json = False,
) -> int:
    """Write a manifest from what was last seen, whose apply sends no target anything.

    Managed adapters are written as they were declared, unmanaged ones with the path they are served from. Content that
    changed at a declared path since it was applied is not a matter of the manifest: an apply rolls it out.
    """
    from garrison.base.files import write_atomic
    from garrison.cli.fleet_wiring import open_fleet
    from garrison.cli.inventory import stock_of
    from garrison.fleet.extract import extract as extract_rows
    from garrison.fleet.inventory_rows import FIELDS, select
    from garrison.fleet.manifest.dump import dump_manifest, manifest_body
    from garrison.fleet.query import parse_query

    asked = parse_query(query or "", FIELDS["adapters"])
    if output is not None and not force and output.exists():
        raise InvalidError(f"{output} exists", hint="Choose another file, or overwrite it with --force.")
    with open_fleet() as fleet:
        store, now = fleet.store, fleet.clock.now()
        rows = select(stock_of(fleet).adapters, asked)
        found = extract_rows(rows, store.stacks(), store.targets(), store.resources(), stack=stack)
    notes = list(found.notes)
    if not found.declaration.adapters:
        notes.append("no adapter was last seen that fits; `garrison inventory` shows what is on record")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if json:
        import json as json_module

        text = json_module.dumps(manifest_body(found.declaration), ensure_ascii=False, indent=2) + "\n"
    else:
        head = [f"written by `garrison extract` on {now:%Y-%m-%d %H:%M:%S} UTC, from what was last seen", *notes]
        text = "".join(f"# {line}\n" for line in head) + dump_manifest(found.declaration)
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        write_atomic(output, text)
    except OSError as error:
        raise InvalidError(f"{output} cannot be written: {error.strerror}", hint="Name another file.") from None
    print(f"wrote {output}; `garrison plan {output}` shows that it changes nothing", file=sys.stderr)
    return 0
