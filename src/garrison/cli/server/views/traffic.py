"""What the gateway carries, at the terminal: usage, requests in progress, requests that have ended."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from garrison.base.output.plain_text import plain
from garrison.cli.views.page import counted
from garrison.cli.views.table import print_table

__all__ = ["show_ended", "show_in_progress", "show_usage"]

_SPLIT = {"day": "day", "key": "key_name", "route": "route"}
_SUMS = ("requests", "failed", "tokens_in", "tokens_cached", "tokens_out")


def show_usage(found: Mapping[str, Any]) -> None:
    """Print a table, its total last."""
    by = [str(one) for one in found["group_by"]]
    rows = [[_named(row, one) for one in by] + _sums(row) for row in found["rows"]]
    if by and len(rows) > 1:
        rows.append(["total", *[""] * (len(by) - 1), *_sums(found["total"])])
    titles = (*by, "requests", "failed", "tokens in", "cached", "tokens out")
    print_table(titles, rows, empty=f"no requests from {found['from']} to {found['to']}")
    if found["truncated"]:
        print("There are more rows: choose fewer days, or fewer names with --by.")


def show_in_progress(found: Mapping[str, Any]) -> None:
    """Print a table."""
    rows = [
        [one["id"], str(one["phase"]), _seconds(one["seconds"]), *_who(one), str(one["bytes_out"])]
        for one in found["requests"]
    ]
    print_table(
        ("id", "phase", "for", "model", "target", "key", "client", "bytes out"),
        [[plain(cell) for cell in row] for row in rows],
        empty="no requests in progress" + (" are known" if found.get("silent") else ""),
    )
    if found["more"]:
        print(f"and {found['more']} more")
    if silent := found.get("silent"):
        print(f"requests of {counted(silent, 'worker')} that did not answer in time are missing", file=sys.stderr)


def show_ended(found: Sequence[Mapping[str, Any]]) -> None:
    """Print a table."""
    rows = [
        [
            one["at"][:19].replace("T", " "), str(one["status"]), one["outcome"], _seconds(one["seconds"]),
            _optional(one["first_byte"]), *_tokens(one["tokens"]), *_who(one), one["id"],
        ]
        for one in found
    ]  # fmt: skip
    print_table(
        ("at (UTC)", "status", "outcome", "took", "first byte", "in", "out", "model", "target", "key", "client", "id"),
        [[plain(cell) for cell in row] for row in rows],
        empty="no requests have ended since the start of the server",
    )


def _named(row: Mapping[str, Any], by: str) -> str:
    if by == "key":
        return plain(_key(row))
    return plain(str(row[_SPLIT[by]]))


def _key(row: Mapping[str, Any]) -> str:
    if row["key_id"] is None:
        return "none"
    return str(row["key_name"] or f"#{row['key_id']}")


def _who(one: Mapping[str, Any]) -> list[str]:
    return [str(one["model"]), str(one["target"]), _key(one), str(one["peer"])]


def _sums(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[name]:,}" for name in _SUMS]


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _optional(value: float | None) -> str:
    return "" if value is None else _seconds(value)


def _tokens(found: Mapping[str, int] | None) -> tuple[str, str]:
    return ("", "") if found is None else (str(found["in"]), str(found["out"]))
