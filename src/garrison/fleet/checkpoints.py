"""The boundaries between the steps of an action, by name, so that a test can end the process at each of them."""

from collections.abc import Callable

__all__ = ["CHECKPOINTS", "Checkpoint", "pass_by"]

Checkpoint = Callable[[str], None]

CHECKPOINTS = (
    "intended",  # recorded as started; nothing has been done
    "checked",
    "staged",
    "looked",  # what is served now was read again, before it is taken away
    "unloaded",
    "loaded",
    "verified",  # the list shows it as it shall be
    "probed",
    "half-recorded",  # the new name is ours in the store, the old one still serves
    "gone",  # the list shows that it is not served any more
    "undone",  # what was loaded and is not right is unloaded again
    "put-back",  # the old one was loaded again after a failed update
    "recorded",  # the end is in the store
)


def pass_by(_name: str) -> None:
    """Nothing happens."""
