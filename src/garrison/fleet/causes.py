"""Why a resource has a version that no action of a command made: the causes of tombstones. No I/O."""

__all__ = ["ASKED_AGAIN", "INTERRUPTED", "MOVED", "OWED", "RESTARTED", "UNLOADED"]

UNLOADED = "unloaded"
"""Somebody unloaded it: the server may still keep its prefix blocks."""
RESTARTED = "restarted"
"""The server is another process now, and keeps nothing of it."""
INTERRUPTED = "interrupted"
"""Settling what a killed command had begun."""
ASKED_AGAIN = "asked for again"
"""A tombstone that somebody applied again, without success so far."""
MOVED = "moved"
"""Its target was declared to be at another address since."""

OWED = frozenset({INTERRUPTED, ASKED_AGAIN, MOVED})
"""Of tombstones that somebody wants loaded: no drift, whatever the policy says of that."""
