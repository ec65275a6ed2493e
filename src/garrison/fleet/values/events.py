"""Kinds of events in the history. Hooks receive only those in `HOOK_KINDS`."""

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
"""What is served differs from what was last applied: an adapter is gone, has another path or another base model."""
RESTORED = "restored"
"""The agent repaired the drift."""
UNREACHABLE = "unreachable"
RECOVERED = "recovered"
RESTARTED = "restarted"
"""Another process answers at the target."""
CHANGED = "changed"
"""An unmanaged adapter appeared, disappeared or changed, a target's settings changed, or the cause of an outage did."""
APPLIED = "applied"
DESTROYED = "destroyed"
ADOPTED = "adopted"
FORGOTTEN = "forgotten"
INTERRUPTED = "interrupted"
"""A command was killed, and the actions it had begun were settled."""
ACTION_DONE = "action-done"
ACTION_FAILED = "action-failed"

HOOK_KINDS = (DRIFT, RESTORED, UNREACHABLE, RECOVERED)
