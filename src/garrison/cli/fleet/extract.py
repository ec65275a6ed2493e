"""`garrison extract`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from garrison.base.errors import InvalidError
from garrison.cli.fleet.inventory import Queries
from garrison.cli.fleet.on_record import OnRecord
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

app = make_app("Write a manifest from what was last seen.")


@app.command(cls=OnRecord)
def extract(
    query: Queries = None,
    stack: Annotated[
        str | None,
        typer.Option("--stack", "-s", metavar="NAME", help="The stack to declare: one on record, or a new one."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Output file. Default: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    json: Json = False,
) -> int:
    """Write a manifest from what was last seen; applying it does what is owed, and
    nothing else.

    The adapters of a stack are written as declared, or as they are served now if
    others changed them. Adapters that no stack owns are written only if a query
    asks for them by name, path, status or managed, or --stack names a new stack.
    A manifest cannot express content that changed at a declared path since it was
    applied: an apply rolls that out.
    """
    from garrison.base.files import write_atomic
    from garrison.base.presence import exists
    from garrison.cli.fleet.wiring import open_operations, run
    from garrison.fleet.manifest.dump import dump_manifest, manifest_body

    if output is not None and not force and exists(output):
        raise InvalidError(f"{output} already exists", hint="Choose another file, or overwrite it with --force.")
    with open_operations() as operations:
        now = operations.now()
        found = run(operations.extract(query or "", stack=stack))
    notes = list(found.notes)
    if not found.declaration.adapters:
        notes.append("no adapter matches; `garrison inventory` shows what is on record")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if json:
        import json as json_module

        body = manifest_body(found.declaration)
        if output is None:
            print(answer({"manifest": body, "notes": notes, "owed": found.owed}))
            return 0
        text = json_module.dumps(body, ensure_ascii=False, indent=2) + "\n"
    else:
        head = [f"written by `garrison extract` on {now:%Y-%m-%d %H:%M:%S} UTC, from what was last seen", *notes]
        text = "".join(f"# {line}\n" for line in head) + dump_manifest(found.declaration)
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        write_atomic(output, text)
    except OSError as error:
        raise InvalidError(f"cannot write {output}: {error.strerror}", hint="Choose another file.") from None
    shown = "shows what is owed" if found.owed else "confirms that it changes nothing"
    print(f"wrote {output}; `garrison plan {output}` {shown}", file=sys.stderr)
    return 0
