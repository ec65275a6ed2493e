"""`garrison inventory`."""

import json as json_module
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.cli.fleet.options import All
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.fleet.context import Fleet
    from garrison.fleet.report.inventory import Inventory

__all__ = ["Queries", "app", "stock_of"]

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
    json: Json = False,
) -> int:
    """List what is on record, managed or not, as last seen.

    No target is contacted; `garrison discover` does that.

    A query consists of field:value terms, where `*` matches anything. Terms of
    different fields must all match; of several terms of one field, one match is
    enough. +field:value must always match, -field:value never. The error for an
    unknown field lists the valid ones.
    """
    from garrison.cli.fleet.wiring import open_fleet
    from garrison.cli.views.inventory import show_rows
    from garrison.cli.views.page import Page
    from garrison.fleet.report.inventory_rows import FIELDS, Row, select
    from garrison.fleet.report.query import parse_query

    asked = parse_query(query or "", FIELDS[noun])
    with open_fleet() as fleet:
        stock, now = stock_of(fleet), fleet.clock.now()
    rows: tuple[Row, ...] = getattr(stock, noun)
    found = select(rows, asked)
    if json:
        print(json_module.dumps([row.to_json() for row in found], ensure_ascii=False))
    elif found:
        show_rows(noun, found, Page(), now, everything=everything)
    else:
        Page().line(_nothing(noun, len(rows), stock))
    return 0


def stock_of(fleet: "Fleet") -> "Inventory":
    """Return everything on record as rows, with the last failure of each adapter."""
    from garrison.fleet.report.inventory import take_stock
    from garrison.fleet.report.last_failure import read_failures

    store, stacks = fleet.store, fleet.store.stacks()
    failures, resources = read_failures(store, stacks), store.resources()
    faults = fleet.artifacts.faults([one.served_path for one in resources])
    return take_stock(stacks, store.targets(), resources, fleet.clock.now(), failures, faults)


def _nothing(noun: str, there: int, stock: "Inventory") -> str:
    """Explain why a list is empty, with the next step."""
    if there:
        return f"none of {there:,} {noun} match the query; `garrison inventory {noun}` shows all"
    if not stock.targets:
        return (
            "nothing on record yet; apply a manifest with `garrison apply`, or look at a server with "
            "`garrison discover --target http://HOST:8000`"
        )
    if noun == "stacks":
        return "no stacks on record; `garrison apply` creates one from a manifest"
    return f"no {noun} were seen on {len(stock.targets):,} targets; `garrison discover` looks again"
