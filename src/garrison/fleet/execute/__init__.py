"""Carries out plans: targets in parallel, the actions of one target in order, each step recorded before its effect.

Leases, retries and group commits live here. What to do is decided in `plan`, and never here.
"""
