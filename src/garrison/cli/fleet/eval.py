"""`garrison eval`."""

from typing import Annotated

import typer

from garrison.cli.fleet.options import File, Files, Props, declaration
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

app = make_app("Check a manifest and print what it declares.")


@app.command("eval")
def evaluate(
    files: Files = None,
    file: File = None,
    prop: Props = None,
    json: Json = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print a manifest (the default).")] = False,
) -> int:
    """Check a manifest and print what it declares.

    Variables are replaced and files merged. No server is contacted, and secrets
    are shown only as references.
    """
    from garrison.base.errors import UsageError
    from garrison.fleet.manifest.dump import dump_manifest

    if json and yaml:
        raise UsageError("--json and --yaml are mutually exclusive", hint="Choose one.")
    declared = declaration(files, file, prop)
    shown = answer(declared.to_json()) if json else dump_manifest(declared, selections=False)
    print(shown, end="\n" if json else "")
    return 0
