"""Observes targets: many at once, with one sighting each; what a sighting changes in the record; and what is drift.

Nothing here changes a target or decides what to do about it.
"""
