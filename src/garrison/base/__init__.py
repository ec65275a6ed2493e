"""Foundations that every other package may use: errors and exit codes, settings, the clock, file helpers, small values.

Imports no other package of Garrison, and knows nothing of models, engines or fleets.
"""
