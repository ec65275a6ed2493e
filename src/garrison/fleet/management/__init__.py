"""The management verbs of the fleet: one protocol, called by every front end, and its local implementation.

Arguments and results are frozen values that can be serialised. What a verb does lives in `operations` and `report`.
"""
