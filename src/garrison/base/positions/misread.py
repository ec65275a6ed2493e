"""What YAML makes of a word without quotes that was meant as text: `off` is false, `012` is ten. Pure."""

import datetime as dt
from typing import Any

__all__ = ["misread", "read_as"]


def misread(written: str, value: Any) -> tuple[str, str]:
    """Return what to say of a word that is read as `value` where text is needed, and the next step."""
    return f"`{written}` is read as {read_as(written, value)}", f"Write '{written}', in quotes."


def read_as(written: str, value: Any) -> str:
    """Return what `written` is read as: `false`, `the number 10`, `a date`. The number is left out where it is the same
    as what was written."""
    if value is None:
        return "no value"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.date):
        return "a time" if isinstance(value, dt.datetime) else "a date"
    return "a number" if str(value) == written else f"the number {value}"
