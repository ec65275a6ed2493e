"""Options that the fleet's commands share, and how a command line becomes a declaration."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from garrison.fleet.declaration import Declaration

__all__ = ["AcceptStale", "Adopt", "All", "ExitCodes", "File", "Files", "Force", "ModeName", "Modes", "Props", "Stack",
           "Yes", "declaration"]  # fmt: skip


class ModeName(StrEnum):
    """`reconcile`: exactly what is declared. `patch`: adds and changes, and removes nothing."""

    RECONCILE = "reconcile"
    PATCH = "patch"


Files = Annotated[list[str] | None, typer.Argument(metavar="FILE", help="As --file.", show_default=False)]
File = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A manifest, a directory of manifests, or `-`; several are merged. Default: garrison.yaml.",
        show_default=False,
    ),
]
Props = Annotated[
    list[str] | None, typer.Option("--prop", metavar="NAME=VALUE", help="What a .pkl file reads as `prop:NAME`.")
]
Modes = Annotated[
    ModeName, typer.Option("--mode", help="reconcile: exactly what is declared; patch: only add and change.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what somebody else changed since it was applied.")]
Adopt = Annotated[
    bool,
    typer.Option("--adopt", "--overwrite", help="Take over adapters that others loaded under a declared name."),
]
AcceptStale = Annotated[
    bool,
    typer.Option(
        "--accept-stale-cache",
        help="Load new content from an unchanged path, though prompts in the server's prefix cache may be answered "
        "from the old weights.",
    ),
]
ExitCodes = Annotated[
    bool,
    typer.Option("--exit-code", help="Exit 32 when there is something, 31 when not but a target is out of reach."),
]
Stack = Annotated[str | None, typer.Option("--stack", "-s", metavar="NAME", help="One stack. Default: all.")]
All = Annotated[bool, typer.Option("--all", help="Show everything, however long it gets.")]


def declaration(files: Sequence[str] | None, more: Sequence[str] | None, props: Sequence[str] | None) -> "Declaration":
    """What the manifests declare; their warnings go to standard error.

    Raises:
        InvalidError: a manifest cannot be used; the message names file, line and column.
        UsageError: a property is not NAME=VALUE.
    """
    from garrison.base.errors import UsageError
    from garrison.fleet.manifest.load import load_declaration

    properties = {}
    for text in props or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError("--prop takes NAME=VALUE", hint="For example --prop site=lab.")
        properties[name] = value
    loaded = load_declaration(
        [*(files or ()), *(more or ())], environ=os.environ, stdin=sys.stdin, properties=properties
    )
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return loaded.declaration
