"""Kinds of events in the history. Hooks are told of the first four."""

__all__ = [
    "ACTION_DONE",
    "ACTION_FAILED",
    "ADOPTED",
    "APPLIED",
    "CHANGED",
    "DESTROYED",
    "DRIFT",
    "FORGOTTEN",
    "HOOK_KINDS",
    "INTERRUPTED",
    "RECOVERED",
    "RESTARTED",
    "RESTORED",
    "UNREACHABLE",
]

DRIFT = "drift"
"""What is served differs from what was last applied: a tombstone, another path, a changed base."""
RESTORED = "restored"
"""The agent made it equal again."""
UNREACHABLE = "unreachable"
RECOVERED = "recovered"
RESTARTED = "restarted"
"""Another process answers at the target."""
CHANGED = "changed"
"""Something that is not managed came, went or changed on a target."""
APPLIED = "applied"
DESTROYED = "destroyed"
ADOPTED = "adopted"
FORGOTTEN = "forgotten"
INTERRUPTED = "interrupted"
"""A command was killed; what it had begun was settled."""
ACTION_DONE = "action-done"
ACTION_FAILED = "action-failed"

HOOK_KINDS = (DRIFT, RESTORED, UNREACHABLE, RECOVERED)
