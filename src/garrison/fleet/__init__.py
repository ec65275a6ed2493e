"""Keeps the LoRA adapters on a fleet of vLLM servers equal to a manifest.

    manifest.load ─► observe ─► plan ─► execute ─► store

The agent runs the same steps on a timer. A target that could not be observed is unknown, and unknown is never treated
as absent. Commands and rendering belong to `cli`, and engine processes to `launch`: this package talks to servers that
are already running.
"""
