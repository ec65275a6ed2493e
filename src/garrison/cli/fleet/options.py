"""Options shared by the fleet commands, and the declaration built from them."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from garrison.fleet.values.declaration import Declaration

__all__ = ["AcceptStale", "Adopt", "All", "ExitCodes", "File", "Files", "Force", "ModeName", "Modes", "Props", "Stack",
           "Yes", "declaration"]  # fmt: skip


class ModeName(StrEnum):
    """How far an apply goes: `reconcile` is exact, `patch` adds and changes but removes nothing."""

    RECONCILE = "reconcile"
    PATCH = "patch"


Files = Annotated[list[str] | None, typer.Argument(metavar="FILE", help="Same as --file.", show_default=False)]
File = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A fleet manifest, a directory of them, or `-`; several are merged. Default: garrison.yaml.",
        show_default=False,
    ),
]
Props = Annotated[
    list[str] | None,
    typer.Option("--prop", metavar="NAME=VALUE", help="A property that a .pkl file reads as `prop:NAME`."),
]
Modes = Annotated[ModeName, typer.Option("--mode", help="reconcile: exactly as declared; patch: only add and change.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite changes that others made since the last apply.")]
Adopt = Annotated[
    bool,
    typer.Option("--adopt", "--overwrite", help="Take over adapters that others loaded under a declared name."),
]
AcceptStale = Annotated[
    bool,
    typer.Option(
        "--accept-stale-cache",
        help="Load new content from an unchanged path, even though prompts in the server's prefix cache may be "
        "answered from the old weights.",
    ),
]
ExitCodes = Annotated[
    bool,
    typer.Option(
        "--exit-code", help="Exit with 32 when there are changes or drift, else with 31 when a target is out of reach."
    ),
]
Stack = Annotated[str | None, typer.Option("--stack", "-s", metavar="NAME", help="Only this stack. Default: all.")]
All = Annotated[bool, typer.Option("--all", help="Show everything; do not truncate.")]


def declaration(files: Sequence[str] | None, more: Sequence[str] | None, props: Sequence[str] | None) -> "Declaration":
    """Load the declaration from manifests and properties; print warnings to standard error.

    Raises:
        InvalidError: a manifest is invalid; the message names file, line and column.
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
