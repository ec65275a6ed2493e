"""Named boundaries between the steps of an action, so that a test can kill the process at each of them."""

from collections.abc import Callable

__all__ = ["CHECKPOINTS", "Checkpoint", "pass_by"]

Checkpoint = Callable[[str], None]

CHECKPOINTS = (
    "intended",  # recorded as started, but nothing has been done
    "checked",
    "staged",
    "looked",  # the current list was read again, just before an unload
    "unloaded",
    "loaded",
    "verified",  # the list shows the adapter as declared
    "probed",
    "half-recorded",  # the new name is recorded, and the old one is still served
    "gone",  # the list no longer shows the adapter
    "undone",  # an adapter that failed verification was unloaded again
    "put-back",  # the old adapter was loaded again after a failed update
    "recorded",  # the outcome is in the store
)


def pass_by(_name: str) -> None:
    """Do nothing; the default outside of tests."""
