"""Garrison keeps inference nodes serving exactly what was declared."""

__version__ = "0.1.0"
