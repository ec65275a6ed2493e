"""The nouns of the fleet: targets, declarations, observations, plans, failures and events, as values.

No I/O, and no decision that needs more than one value: those belong to the rooms above.
"""
