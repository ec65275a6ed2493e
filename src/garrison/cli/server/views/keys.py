"""API keys at the terminal."""

from collections.abc import Sequence
from datetime import datetime

from garrison.access.key import Key, KeyState
from garrison.access.permissions import Scope
from garrison.base.output.plain_text import plain
from garrison.cli.views.age import ago, duration, utc
from garrison.cli.views.table import print_facts, print_table

__all__ = ["show_key", "show_keys"]


def show_keys(keys: Sequence[Key], now: datetime) -> None:
    """Print a table."""
    rows = [
        (
            str(key.id),
            plain(key.name),
            key.prefix,
            _scopes(key),
            _reach(key),
            str(key.state(now)),
            _expires(key, now),
            ago(key.last_used, now),
        )
        for key in keys
    ]
    titles = ("id", "name", "token", "for", "may use", "state", "expires", "used")
    print_table(titles, rows, empty="no keys; `garrison keys create NAME --manage` makes one that manages")


def show_key(key: Key, now: datetime) -> None:
    """Print everything about one key, one fact a line."""
    limits = key.limits
    old = None
    if key.previous_prefix is not None and key.rotates_until is not None and key.rotates_until > now:
        old = f"{key.previous_prefix}… works until {utc(key.rotates_until)} UTC"
    print_facts(
        [
            ("id", key.id),
            ("name", plain(key.name)),
            ("token", f"{key.prefix}…"),
            ("old token", old),
            ("state", _state(key, now)),
            ("for", _scopes(key)),
            ("may use", _reach(key)),
            ("requests", _rate(limits.requests_per_minute, "a minute")),
            ("tokens", _rate(limits.tokens_per_minute, "a minute")),
            ("at once", _rate(limits.concurrent, "requests")),
            ("priority", key.priority or None),
            ("expires", None if key.expires_at is None else f"{utc(key.expires_at)} UTC"),
            ("note", plain(key.note) or None),
            ("created", f"{utc(key.created)} UTC"),
            ("changed", f"{utc(key.updated)} UTC" if key.revision > 1 else None),
            ("used", ago(key.last_used, now)),
        ]
    )


def _scopes(key: Key) -> str:
    """Name the scopes; `manage` stands for the others too."""
    return "manage" if Scope.MANAGE in key.permissions.scopes else ", ".join(sorted(key.permissions.scopes))


def _expires(key: Key, now: datetime) -> str:
    if key.expires_at is None:
        return "never"
    left = (key.expires_at - now).total_seconds()
    return f"in {duration(left)}" if left > 0 else ago(key.expires_at, now)


def _state(key: Key, now: datetime) -> str:
    state = key.state(now)
    if state is KeyState.UNUSABLE:
        return "unusable: made with another key secret; `garrison keys rotate` gives it a token that works"
    return str(state)


def _reach(key: Key) -> str:
    only = key.permissions.only
    if only is None:
        return "all" if Scope.INFERENCE in key.permissions.scopes else "none"
    found = [plain(name) for name in sorted(only.instances)]
    found += [f"instance {number}" for number in sorted(only.instance_ids)]
    found += [f"model {plain(name)}" for name in sorted(only.models)]
    return ", ".join(found)


def _rate(value: int | None, of: str) -> str | None:
    return None if value is None else f"at most {value:,} {of}"
