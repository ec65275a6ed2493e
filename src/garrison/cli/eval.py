"""`garrison eval`."""

import json as json_module
import os
import sys
from typing import Annotated

import typer

from garrison.cli.options import Json
from garrison.cli.options import app as make_app

app = make_app("Check a manifest and print what it declares.")


@app.command("eval")
def evaluate(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="As --file.", show_default=False)] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A manifest, a directory of manifests, or `-`; several are merged. Default: garrison.yaml.",
            show_default=False,
        ),
    ] = None,
    prop: Annotated[
        list[str] | None, typer.Option("--prop", metavar="NAME=VALUE", help="What a .pkl file reads as `prop:NAME`.")
    ] = None,
    json: Json = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print a manifest; this is the default.")] = False,
) -> int:
    """Check a manifest and print what it declares, variables replaced and files merged. No server is asked, and of
    secrets only the references are shown."""
    from garrison.base.errors import UsageError
    from garrison.fleet.manifest.dump import dump_manifest
    from garrison.fleet.manifest.load import load_declaration

    if json and yaml:
        raise UsageError("--json and --yaml exclude each other", hint="Choose one.")
    properties = {}
    for text in prop or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError("--prop takes NAME=VALUE", hint="For example --prop site=lab.")
        properties[name] = value
    loaded = load_declaration(
        [*(files or ()), *(file or ())], environ=os.environ, stdin=sys.stdin, properties=properties
    )
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    declaration = loaded.declaration
    print(json_module.dumps(declaration.to_json()) if json else dump_manifest(declaration), end="\n" if json else "")
    return 0
