"""Decisions: which actions would make the observation equal to the manifest, and which of them the agent may take.

Pure functions of values. No I/O.
"""
