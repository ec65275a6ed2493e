"""`garrison inventory`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.cli.fleet.options import All
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, ServerUrl
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.fleet.management.requests import Listing

__all__ = ["Queries", "app"]

app = make_app("List what is on record, managed or not.")

Queries = Annotated[
    str | None,
    typer.Option(
        "--query",
        "-q",
        metavar="QUERY",
        help="For example: 'stack:cabinet-7 status:drifted target:edge*'. `drifted` includes missing adapters.",
    ),
]


class Noun(StrEnum):
    """Kinds of records that can be listed."""

    TARGETS = "targets"
    ADAPTERS = "adapters"
    MODELS = "models"
    STACKS = "stacks"


@app.command()
def inventory(
    noun: Annotated[Noun, typer.Argument(help="What to list.")] = Noun.ADAPTERS,
    query: Queries = None,
    everything: All = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """List what is on record, managed or not, as last seen.

    No target is contacted; `garrison discover` does that.

    A query consists of field:value terms, where `*` matches anything. Terms of
    different fields must all match; of several terms of one field, one match is
    enough. +field:value must always match, -field:value never. The error for an
    unknown field lists the valid ones.
    """
    from garrison.cli.fleet.wiring import open_stacks, run
    from garrison.cli.views.inventory import show_rows
    from garrison.cli.views.page import Page

    with open_stacks(server) as operations:
        found = run(operations.inventory(noun.value, query or ""))
    if json:
        rows = found.to_json()
        print(answer({"noun": noun.value, "count": len(rows), "on_record": found.on_record, "rows": rows}))
    elif found.rows:
        show_rows(noun, found.rows, Page(), found.now, everything=everything)
    else:
        Page().line(_nothing(noun, found))
    return 0


def _nothing(noun: str, found: "Listing") -> str:
    """Explain why a list is empty, with the next step."""
    if found.on_record:
        return f"none of {found.on_record:,} {noun} match the query; `garrison inventory {noun}` shows all"
    if not found.targets:
        return (
            "nothing on record yet; apply a manifest with `garrison apply`, or look at a server with "
            "`garrison discover --target http://HOST:8000`"
        )
    if noun == "stacks":
        return "no stacks on record; `garrison apply` creates one from a manifest"
    return f"no {noun} were seen on {found.targets:,} targets; `garrison discover` looks again"
