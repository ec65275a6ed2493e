"""Which of the options that the API shows an instance has of its own. Imports nothing that is slow to import."""

from collections.abc import Mapping
from typing import Any

__all__ = ["FOLLOWS", "own_options"]

FOLLOWS = "follows_settings"
"""The field of an instance that lists options which only show what a setting of its server says."""


def own_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an instance, as `shown` has it, without those that follow a setting."""
    follows = row.get(FOLLOWS) or ()
    return {name: value for name, value in row["options"].items() if name not in follows}
