"""Adapter files: digests, checks, and the directory from which servers load them.

Everything here may wait for a disk, and is called in a thread.
"""
