"""Causes of tombstones: why a resource has a version that no action of a command made. No I/O."""

__all__ = ["ASKED_AGAIN", "INTERRUPTED", "MOVED", "OWED", "RESTARTED", "UNLOADED"]

UNLOADED = "unloaded"
"""It was unloaded from outside; the server may still cache its prefix blocks."""
RESTARTED = "restarted"
"""The server is another process now, so nothing of it is cached."""
INTERRUPTED = "interrupted"
"""A killed command had begun to change it."""
ASKED_AGAIN = "asked for again"
"""A tombstone that was applied again, without success so far."""
MOVED = "moved"
"""Its target has since been declared at another address."""

OWED = frozenset({INTERRUPTED, ASKED_AGAIN, MOVED})
"""Causes of tombstones whose load is owed: they are not drift, and are loaded whatever the policy says about drift."""
