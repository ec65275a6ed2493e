"""Decisions: what has to be done so that the observation equals the manifest, and what the agent may do by itself.

Pure functions of values. No I/O.
"""
