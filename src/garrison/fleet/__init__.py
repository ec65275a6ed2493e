"""Declared LoRA adapters on a fleet of vLLM servers.

    manifest.load ─► observe ─► plan ─► execute ─► store

The reconcile loop is the same steps on a timer. What could not be observed is unknown, and unknown is never absent.
"""
