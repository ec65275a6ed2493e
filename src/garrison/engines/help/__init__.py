"""Read an engine's `--help` into its catalogue of options.

Text in, values out: only `describe` runs a program.
"""
