"""Carrying out a plan: targets in parallel, the actions of one target in order, each step stored before its effect."""
