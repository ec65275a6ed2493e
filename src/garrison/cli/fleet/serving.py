"""What `garrison serve` runs on this machine, for the status."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from garrison.cli.options import settings
from garrison.cli.views.page import Page

__all__ = ["serving_here", "show_serving"]


def serving_here() -> list[dict[str, Any]]:
    """Return a row for each engine, as `garrison ps` has them."""
    values = settings("server")
    if not values.engine_records.exists():  # nothing ever ran, and nothing more is imported
        return []
    from garrison.cli.server.running import this_machine, what_runs
    from garrison.launch.served import served_engines

    return what_runs((), served_engines(values, this_machine()))


def show_serving(page: Page, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Print the rows under a title; nothing where there are none."""
    if not rows:
        return
    from garrison.cli.server.views.ps import show_runs

    page.blank()
    page.line(("served on this machine by `garrison serve`", "bold"))
    show_runs(page, rows, now)
