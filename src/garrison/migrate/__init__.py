"""Reads the configuration of other systems, and writes the manifest that is its equivalent.

Nothing that is read is run, and no value of a secret is written: a reference and a remark take its place.
"""
