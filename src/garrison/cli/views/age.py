"""Durations and times as people read and write them: `3 m ago`. Absolute times are UTC."""

import re
from datetime import datetime, timedelta

from garrison.base.errors import UsageError

__all__ = ["ago", "duration", "parse_since", "parse_until", "utc"]

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_SINCE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "": 1}


def ago(then: datetime | None, now: datetime) -> str:
    """Format how long before `now` something happened.

    None gives `never`. Less than a second gives `just now`, and so does a time in the future: clocks can go back.
    """
    if then is None:
        return "never"
    seconds = int((now - then).total_seconds())
    return f"{duration(seconds)} ago" if seconds >= 1 else "just now"


def duration(seconds: float) -> str:
    """Format a duration in its largest unit: `0 s`, `59 s`, `3 m`, `26 h`, `5 d`. Hours are used up to two days."""
    whole = int(seconds)
    for unit, size in _UNITS:
        if whole >= (2 * size if unit == "d" else size):
            return f"{whole // size} {unit}"
    return "0 s"


def utc(at: datetime) -> str:
    """Format a UTC time to the second, without a zone."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def parse_since(text: str, now: datetime) -> datetime:
    """Parse the value of `--since`: a duration before `now`, or a time.

    Durations are `90`, `90s`, `15m`, `2h`, `3d` or `1w`. Times are ISO 8601, such as `2026-01-31` or
    `2026-01-31T12:00`, and UTC unless they carry an offset.

    Raises:
        UsageError: `text` is neither.
    """
    if match := _SINCE.fullmatch(text.strip()):
        try:
            return now - timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        except OverflowError:
            raise _invalid(text) from None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _invalid(text) from None
    return found.astimezone(now.tzinfo) if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def parse_until(text: str, now: datetime) -> datetime:
    """Parse the value of `--expires`: a duration after `now`, or a time, each as in `parse_since`.

    Raises:
        UsageError: `text` is neither.
    """
    refused = UsageError(
        f"invalid --expires value {text!r}", hint="For example: --expires 12h, 30d, 2w, 2027-01-31 (UTC), or never."
    )
    try:
        # A duration before `now` lies as far behind it as one after `now` lies ahead.
        found = parse_since(text, now)
        return now + (now - found) if _SINCE.fullmatch(text.strip()) else found
    except (UsageError, OverflowError):
        raise refused from None


def _invalid(text: str) -> UsageError:
    return UsageError(
        f"invalid --since value {text!r}", hint="For example: --since 2h, 15m, 3d, or 2026-01-31T12:00 (UTC)."
    )
