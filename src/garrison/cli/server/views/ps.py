"""What runs here, as a table."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from garrison.base.values import size_text
from garrison.cli.server.views.instances import NONE, STATE_STYLES, age_of
from garrison.cli.views.columns import Column, show_rows
from garrison.cli.views.page import Page

__all__ = ["show_runs"]

_COLUMNS = (
    Column("name", least=12),
    Column("kind"),
    Column("state", styles=STATE_STYLES),
    Column("since", right=True),
    Column("engine"),
    Column("model", least=10, keeps_end=True),
    Column("port", right=True),
    Column("memory", right=True),
)


def show_runs(page: Page, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Print the table."""
    if not rows:
        page.line("nothing runs here; `garrison serve MODEL` serves one model, `garrison up` many")
        return
    for line in show_rows(page, _COLUMNS, [_cells(one, now) for one in rows]):
        page.print(line)


def _cells(one: Mapping[str, Any], now: datetime) -> list[str]:
    held = one["memory_bytes"]
    texts = [one["name"], one["kind"], one["state"], age_of(one, now), one["engine"], one["model"], one["port"]]
    return [*(NONE if text in (None, "") else str(text) for text in texts), NONE if held is None else size_text(held)]
